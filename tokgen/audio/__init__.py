"""Audio input and output.

- `files` - read and write audio
- `blocks` - the blocks of a file, mixed or with their channels, and resampled
- `decoders` - open audio of any format as a stream of blocks
- `sources` - open paths, bytes and open files, and the error that names them
- `parts` - find the parts of chained Ogg and concatenated MP3
- `ffmpeg` - decode with FFmpeg in a child process
- `ffmpeg_child` - the child process
- `quiet` - silence C libraries
- `encoders` - encode audio into open files
- `lossy` - MP3 and Opus in memory, without delay
- `bitrates` - bitrates of lossy formats
- `resampling` - resample audio, whole or in blocks
- `torchaudio_shim` - import torchaudio next to a CPU-only torch
"""
