"""Token models.

- `masked` - the masked transformer
- `settings` - size of a model, and its presets
- `masking` - mask schedule, training masks, loss and accuracy
"""
