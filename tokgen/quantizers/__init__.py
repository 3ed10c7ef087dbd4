"""Quantizers for codecs.

- `residual` - factorised residual vector quantizer of DAC
"""
