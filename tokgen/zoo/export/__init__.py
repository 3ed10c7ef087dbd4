"""Codecs as files for other runtimes.

- `networks` - encoder and decoder as networks that can be exported
- `files` - write ONNX files, and check them
"""
