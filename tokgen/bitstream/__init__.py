"""Files that hold codes.

- `codes_file` - write and read the codes of one utterance, as `tokgen encode` stores them
"""
