"""Training of token models.

- `train` - train a model with one call
- `loop` - the training loop with checkpoints, validation and history
- `settings` - settings of the loop and of whole trainings
- `data` - batches with masks, divided among processes
- `excerpts` - random excerpts of a token dataset
- `card` - facts about a training, for the model's card
- `masked` - training of masked transformers
- `delay` - training of autoregressive transformers
- `kinds` - make a transformer and its training, of the kind that settings name
- `text` - training of text models
- `text_frames` - token datasets and transformers whose conditioning is text
- `causal` - training of causal models of codes
- `code_bits` - bits that entropy models spend on held-out codes
- `grids` - training clips on other grids of frames
- `flops` - model FLOPs, and the peak FLOP/s of GPUs
"""
