"""Parts that several networks share.

- `pretrained` - save, load and hash models
- `dense` - fast linear layers and argmax on CPUs
- `ema` - moving averages of weights
- `spectral_losses` - distances between spectra
"""
