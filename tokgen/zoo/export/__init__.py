"""Codecs as files for other runtimes.

- `settings` - formats, and the names of their files
- `networks` - encoder and decoder as networks that can be exported
- `programs` - write networks as programs, and open them: ONNX files and torch's .pt2 files
- `files` - write the files of a codec, and check them
"""
