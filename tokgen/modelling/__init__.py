"""Token models.

- `masked` - the masked transformer
- `masking` - mask schedule, training masks, loss and accuracy
"""
