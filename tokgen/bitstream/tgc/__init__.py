"""The .tgc format: codes in blocks with checksums.

- `container` - write and read .tgc files: codes in blocks that are checked one by one
- `records` - find the readable records of a .tgc file, also of a damaged one
- `layout` - the records of .tgc files as bytes
- `checksum` - CRC-32C
- `block_codes` - the codes and the depth of a block to bytes, and back
- `entropy` - integer counts of each next code
- `range_coder` - symbols and integer counts to bytes, and back
- `facts` - what a .tgc file tells about itself
"""
