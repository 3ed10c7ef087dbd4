"""Held-out utterances of the tiny corpus, and a model for their tokens."""

from __future__ import annotations

from pathlib import Path

import torch

from tokgen.generation.corpora import training_and_test_tokens
from tokgen.generation.held_out import HeldOut, choose_held_out
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.settings import ModelSettings
from tokgen.tokens.dataset import TokenDataset
from tokgen.zoo.stft import StftCodec


def make_held_out(corpus: Path, codec: StftCodec, cache: Path) -> tuple[TokenDataset, HeldOut]:
    """Tokens with log-mel conditioning, and all utterances of their test split."""
    tokens, _ = training_and_test_tokens(str(corpus), None, codec, cache, "log_mel")
    return tokens, choose_held_out(tokens, codec, str(corpus), n=9)


def make_small_model(codec: StftCodec, tokens: TokenDataset) -> MaskedTransformer:
    """A random model of one layer for these tokens."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = ModelSettings(dim=32, depth=1, heads=2)
        return MaskedTransformer.for_tokens(codec, tokens, settings).eval()
