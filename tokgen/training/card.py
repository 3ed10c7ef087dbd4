"""Facts about a training, for the model's card."""

from __future__ import annotations

from dataclasses import asdict, fields

from tokgen.nn.cards import ModelCardFacts
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.settings import (
    CausalTrainingSettings,
    LoopSettings,
    ModelTrainingSettings,
    TextTrainingSettings,
)

__all__ = ["card_facts"]


def card_facts(tokens: TokenDataset, settings: LoopSettings, *, precision: str) -> ModelCardFacts:
    """Return corpus, hours and settings of a training.

    Args:
        tokens: dataset that the model is trained on.
        settings: a recipe's own settings are left out, as are those that are None.
        precision: mixed precision that the training ran in, in place of the settings' "auto".
    """
    kinds = (CausalTrainingSettings, TextTrainingSettings)
    kind = next((k for k in kinds if isinstance(settings, k)), ModelTrainingSettings)
    known = {field.name for field in fields(kind)} - {"tracker", "workers"}
    given = asdict(settings)
    if isinstance(model := given.get("model"), dict):
        given["model"] = {key: value for key, value in model.items() if value is not None}
    if "mixed_precision" in given:
        given["mixed_precision"] = precision
    return ModelCardFacts(
        corpus=tokens.provenance.corpus,
        fingerprint=tokens.provenance.corpus_fingerprint,
        hours=sum(tokens.splits["train"]["n_samples"]) / tokens.provenance.sample_rate / 3600,
        settings={key: value for key, value in given.items() if key in known},
    )
