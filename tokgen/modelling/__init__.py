"""Token models.

- `masked` - the masked transformer
- `settings` - size of a model, and its presets
- `depths` - depth of frames as a level of its own
- `masking` - mask schedule, training masks, loss and accuracy
- `causal` - causal models of codes for entropy coding, and EnCodec's language model
- `causal_depth` - a small causal model whose levels depend on each other
- `code_tables` - tables of code frequencies, for comparison
- `integer` - arithmetic in whole numbers, the same on every machine
- `integer_depth` - the small causal model in whole numbers, for streams
"""
