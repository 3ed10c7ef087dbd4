"""Token models.

- `transformer` - base class of token transformers: embeddings, conditioning and heads
- `masked` - the masked transformer
- `delay` - the autoregressive transformer with MusicGen's delay pattern
- `loading` - load a token transformer of either kind
- `settings` - kind and size of a model, and its presets
- `depths` - depth of frames as a level of its own
- `masking` - mask schedule, training masks, loss and accuracy
- `causal` - causal models of codes for entropy coding, and EnCodec's language model
- `causal_depth` - a small causal model whose levels depend on each other
- `code_tables` - tables of code frequencies, for comparison
- `integer` - arithmetic in whole numbers, the same on every machine
- `integer_depth` - the small causal model in whole numbers, for streams
- `text/` - text as the conditioning of token models
"""
