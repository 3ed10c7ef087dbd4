"""Small random-weight models of every wrapped library, for the contract and for parity tests.

`MAKERS` is what test_codec.py runs its contract over: add a maker, and the contract holds.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from transformers import DacConfig, DacModel

from tokgen.codec import Codec
from tokgen.wrappers.dac import DacCodec

STRIDES = {"dac-even": [2, 4, 8], "dac-odd": [2, 5, 4]}


def make_dac(name: str) -> DacCodec:
    config = DacConfig(
        encoder_hidden_size=8,
        downsampling_ratios=STRIDES[name],
        decoder_hidden_size=32,
        n_codebooks=3,
        codebook_size=32,
        codebook_dim=4,
        sampling_rate=8000,
    )
    with torch.random.fork_rng():
        torch.manual_seed(1)
        return DacCodec.from_model(DacModel(config), name)


MAKERS: dict[str, Callable[[], Codec]] = {name: partial(make_dac, name) for name in STRIDES}
