"""Parts that several networks share.

- `pretrained` - save and load models
- `hashes` - hashes of weights
- `files` - read config.json and the headers of weights
- `torch_files` - open checkpoints of torch without running code
- `checks` - compare settings with weights before a network is built
- `hub` - find models in folders and on the Hugging Face hub, and upload them
- `cards` - model cards
- `dense` - fast linear layers and argmax on CPUs
- `ema` - moving averages of weights
- `eight_bits` - weights saved in 8 bits
- `shared` - weights that two models share are saved once
- `spectral_losses` - distances between spectra
"""
