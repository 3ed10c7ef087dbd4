"""Audio input and output.

- `files` - read, write and resample audio
- `decoders` - open audio of any format as a stream of blocks
- `interrupts` - hold back Ctrl-C while a C library runs
- `torchaudio_shim` - import torchaudio beside a CPU-only torch
"""
