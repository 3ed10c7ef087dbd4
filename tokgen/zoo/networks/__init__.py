"""Networks of tokgen's own codecs.

- `stft` - network of the STFT codec
"""
