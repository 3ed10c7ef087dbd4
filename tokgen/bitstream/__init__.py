"""Files that hold codes.

- `files` - encode an audio file, and decode it
- `codes_file` - write and read the codes of one utterance, as `tokgen encode` stores them
"""
