"""Networks of tokgen's own codecs.

- `causal` - causal layers of the STFT codec
- `stft` - network of the STFT codec
"""
