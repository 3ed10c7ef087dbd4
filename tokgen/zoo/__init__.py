"""The codecs that tokgen can load.

- `lookup` - find and load codecs by name
- `registry` - table of the kinds of codec
- `loading` - base class of the codecs that transformers runs
- `residual` - base class of codecs with a plain residual quantizer
- `windowed` - base class of codecs that run in overlapping windows
- `stft` - tokgen's own codec
- `networks/` - tokgen's own networks
- `adapters/` - codecs of other libraries, one module each
"""
