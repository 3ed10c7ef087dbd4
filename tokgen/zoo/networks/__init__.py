"""Networks of tokgen's own codecs, and of codecs whose published weights they load.

- `autoencoder` - encoder and decoder of the STFT codec
- `alias_free` - layers of BigCodec and FACodec
- `bigcodec` - network of BigCodec
- `causal` - causal layers of the STFT codec
- `dualcodec` - network of DualCodec
- `esc` - network of ESC
- `esc_layers` - layers of it
- `facodec` - network of FACodec
- `nemo` - networks of NeMo's audio codecs
- `nemo_layers` - layers of them
- `spectrum` - waveform to spectral features and back
- `stft` - network of the STFT codec
"""
