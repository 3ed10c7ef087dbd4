"""Parts that several networks share.

- `pretrained` - save, load and hash models
- `checks` - check the folder of a model before its network is built
- `hub` - find models in folders and on the Hugging Face hub, and upload them
- `cards` - model cards
- `dense` - fast linear layers and argmax on CPUs
- `ema` - moving averages of weights
- `spectral_losses` - distances between spectra
"""
