"""Files that hold codes.

- `files` - encode an audio file, and decode it
- `batch` - encode and decode several files
- `outputs` - where encoding and decoding write their files
- `codes_file` - write and read the codes of one utterance, as `tokgen encode` stores them
- `tgc_batch` - compress and decompress several files and folders
- `tgc_files` - compress audio files to .tgc files, and decompress them
- `tgc_facts` - what a .tgc file tells about itself
- `compressed` - compress audio to .tgc files and decompress them, whole or as a stream
- `decompressing` - decode the events of a .tgc file to audio, and conceal what is missing
- `entropy_models` - find the entropy model of a codec
- `entropy` - integer counts of each next code
- `container` - write and read .tgc files: codes in blocks that are checked one by one
- `records` - find the readable records of a .tgc file, also of a damaged one
- `layout` - the records of .tgc files as bytes
- `checksum` - CRC-32C
- `block_codes` - the codes of a block to bytes, and back
- `range_coder` - symbols and integer counts to bytes, and back
"""
