"""The codecs that tokgen can load.

- `lookup` - find and load codecs by name
- `registry` - table of the kinds of codec
- `loading` - base classes of the codecs that load from a folder
- `stft` - tokgen's own codec
- `networks/` - tokgen's own networks
- `adapters/` - codecs of other libraries, one module each
"""
