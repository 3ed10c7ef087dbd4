"""Networks of tokgen's own codecs.

- `autoencoder` - encoder and decoder of the STFT codec
- `causal` - causal layers of the STFT codec
- `spectrum` - waveform to spectral features and back
- `stft` - network of the STFT codec
"""
