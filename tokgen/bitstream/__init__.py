"""Files that hold codes.

- `files` - encode an audio file, and decode it
- `batch` - encode and decode several files
- `outputs` - where encoding and decoding write their files
- `codes_file` - write and read the codes of one utterance, as `tokgen encode` stores them
- `tgc_files` - compress audio files to .tgc files, and decompress them
- `tgc_batch` - compress and decompress several files and folders
- `compressed` - compress audio to .tgc files and decompress them, whole or as a stream
- `settings` - settings of compression: levels, bitrate, entropy model and length of blocks
- `decompressing` - decode the events of a .tgc file to audio, and conceal what is missing
- `named_codecs` - codecs for files: those that the caller gives, and those that files name
- `entropy_models` - find the entropy model of a codec
- `tgc` - the .tgc format: codes in blocks with checksums
"""
