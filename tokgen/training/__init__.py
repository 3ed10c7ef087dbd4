"""Training of token models.

- `loop` - the training loop with checkpoints, validation and history
- `settings` - settings of the loop
- `data` - batches with masks, divided among processes
- `excerpts` - random excerpts of a token dataset
- `flops` - model FLOPs, and the peak FLOP/s of GPUs
"""
