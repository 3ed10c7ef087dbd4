"""Make a token transformer and its training, of the kind that the settings name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tokgen.codec.base import Codec
from tokgen.modelling.delay import DelayTransformer
from tokgen.modelling.loading import TRANSFORMERS
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.transformer import TokenTransformer
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.delay import DelayTraining
from tokgen.training.masked import MaskedTraining
from tokgen.training.settings import ModelTrainingSettings

__all__ = ["make_training", "make_transformer"]


def make_transformer(
    codec: Codec, tokens: TokenDataset, settings: ModelTrainingSettings
) -> TokenTransformer:
    """Create the model that `settings.model` describes.

    Raises:
        ValueError: the tokens are of another codec, or of a variable bitrate that the kind refuses.
    """
    return TRANSFORMERS[settings.model.kind].for_tokens(codec, tokens, settings.model)


def make_training(
    accelerator: Any,
    model: TokenTransformer,
    tokens: TokenDataset,
    settings: ModelTrainingSettings,
    folder: Path,
) -> MaskedTraining | DelayTraining:
    """Create the training of a model.

    Raises:
        ValueError: see `MaskedTraining` and `DelayTraining`.
    """
    if isinstance(model, DelayTransformer):
        return DelayTraining(accelerator, model, tokens, settings, folder)
    assert isinstance(model, MaskedTransformer)
    return MaskedTraining(accelerator, model, tokens, settings, folder)
