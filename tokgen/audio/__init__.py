"""Audio input and output.

- `files` - read and write audio
- `decoders` - open audio of any format as a stream of blocks
- `encoders` - encode audio into open files
- `resampling` - resample audio, whole or in blocks
- `torchaudio_shim` - import torchaudio next to a CPU-only torch
"""
