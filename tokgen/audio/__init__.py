"""Audio input and output.

- `files` - read, write and resample audio
- `decoders` - open audio of any format as a stream of blocks
- `torchaudio_shim` - import torchaudio next to a CPU-only torch
"""
