"""Codecs whose published weights run in tokgen's own networks, which are in `tokgen.zoo.networks`.

- `loading` - base class, YAML files, and weight norm folded into plain weights
- `bigcodec` - BigCodec
- `dualcodec` - DualCodec
- `esc` - ESC
- `facodec` - FACodec
- `nemo` - NeMo's spectral codecs and NanoCodec
- `nemo_files` - read .nemo files
"""
