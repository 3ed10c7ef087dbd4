"""Small masked models with random weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from tokgen.codec.base import Codec
from tokgen.modelling.masked import MaskedTransformer
from tokgen.tokens.conditioning import ConditioningSettings


def make_generator(codec: Codec, conditioned: bool = True) -> MaskedTransformer:
    """Return a model of a codec's codes, with MFCCs as its conditioning or without one."""
    about: dict[str, Any] = {"conditioning_dim": 0}
    if conditioned:
        about = {
            "conditioning": asdict(ConditioningSettings.for_codec(codec.spec)),
            "conditioning_mean": [-10.0] + [0.0] * 29,
            "conditioning_std": [10.0] * 30,
        }
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"dim": 32, "depth": 1, "heads": 2, "dim_head": 32}
        return MaskedTransformer.for_codec(codec, **sizes, **about).eval()
