"""Quantizers for codecs.

- `residual` - factorised residual vector quantizer of DAC, and its start by k-means
"""
