"""Quantizers that are fitted to the frames of a trained autoencoder.

- `base` - the interface, `OfflineQuantizer`, and the share of variance that is left
- `registry` - the quantizers by name
- `additive` - residual k-means and local search, with beam search
- `product` - product quantization, plain and with a rotation
- `scalar` - finite scalar quantization, plain and residual
- `qinco2` - QINCo2: each level's codebook depends on the levels before it
- `qinco2_network` - network and search of QINCo2
- `qinco2_training` - train QINCo2
- `settings` - names of the quantizers, and settings of that training
"""
