"""Quantizers for codecs.

- `beam` - beam search over the levels of a residual quantizer
- `residual` - factorised residual vector quantizer of DAC, and its start by k-means
- `settings` - settings of the variable bitrate
- `variable` - variable bitrate: an importance network chooses the levels of each frame
- `ema` - EnCodec's residual quantizer in training
- `offline/` - quantizers that are fitted to the frames of a trained autoencoder
"""
