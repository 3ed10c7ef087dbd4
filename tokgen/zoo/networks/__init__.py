"""Networks of tokgen's own codecs.

- `causal` - causal layers of the STFT codec
- `spectrum` - waveform to spectral features and back
- `stft` - network of the STFT codec
"""
