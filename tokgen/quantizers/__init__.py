"""Quantizers for codecs.

- `beam` - beam search over the levels of a residual quantizer
- `residual` - factorised residual vector quantizer of DAC, and its start by k-means
- `ema` - EnCodec's residual quantizer in training
"""
