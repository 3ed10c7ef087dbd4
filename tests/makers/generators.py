"""Small masked models with random weights."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from tokgen.codec.base import Codec
from tokgen.generation.speech import Speaker
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.settings import ModelSettings
from tokgen.modelling.text.model import TextModel
from tokgen.modelling.text.symbols import Symbols
from tokgen.tokens.conditioning import ConditioningSettings
from tokgen.training.text_frames import speaking_transformer


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


def make_speaker(codec: Codec) -> Speaker:
    """Return models with random weights that speak the letters a to z."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = Symbols.of_texts(["abcdefghijklmnopqrstuvwxyz"]).names
        text = TextModel(symbols=names, dim=16, encoder_depth=1, decoder_depth=1, kernel=3).eval()
        text.duration_head.bias.data.fill_(1.5)  # about three frames each
        sizes = ModelSettings(dim=32, depth=1, heads=2)
        return Speaker(speaking_transformer(codec, text, sizes).eval(), text)
