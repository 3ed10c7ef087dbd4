"""Settings of the training of a causal model of codes."""

# No postponed annotations: jsonargparse could not evaluate them in the modules of subclasses.
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from tokgen.runs.checks import check_least, check_positive, check_shares
from tokgen.training.settings import SCHEDULES

__all__ = ["CAUSAL_MAY_CHANGE", "CausalTrainingSettings"]

# These may change when a training continues: they do not affect the trained weights.
CAUSAL_MAY_CHANGE = ("checkpoint_every", "tracker")


@dataclass(frozen=True, kw_only=True)
class CausalTrainingSettings:
    """Settings of the training of a causal model of codes.

    Attributes:
        kind: "depth" (levels of a frame one after another, for streams) or "transformer" (EnCodec's
            language model: all levels of a frame at once).
        model: sizes of the model that replace its own, such as {dim: 96, dropout: 0.1}.
        steps: optimiser steps.
        batch_size: excerpts per process and step.
        crop_seconds: length of an excerpt.
        learning_rate: AdamW's, after `warmup` steps.
        warmup: steps in which the learning rate rises from 0.
        schedule: "constant" or "cosine" (falls to 5 %).
        weight_decay: AdamW's.
        clip: limit of the gradient's norm.
        level_dropout: share of batches that have only the first levels, a random number of them, so
            that the model can code streams of fewer levels.
        ema: decay of the averaged weights, which are validated and saved; 0 for none.
        mixed_precision: "auto" (bf16 if the hardware has it), "no", "bf16" or "fp16".
        tracker: "none", "tensorboard", "wandb" ...
        log_every: steps between lines of the history.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        seed: seed of the weights and the excerpts.
    """

    kind: Literal["depth", "transformer"] = "depth"
    model: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 1000
    batch_size: int = 16
    crop_seconds: float = 2.5
    learning_rate: float = 3e-3
    warmup: int = 50
    schedule: Literal["constant", "cosine"] = "cosine"
    weight_decay: float = 0.05
    clip: float = 1.0
    level_dropout: float = 0.1
    ema: float = 0.0
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "no"
    tracker: str = "none"
    log_every: int = 20
    validate_every: int = 200
    checkpoint_every: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, steps=1, batch_size=1, warmup=0, weight_decay=0, seed=0)
        check_least(self, log_every=1, validate_every=1, checkpoint_every=1)
        check_positive(self, "crop_seconds", "learning_rate", "clip")
        check_shares(self, "level_dropout")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema = {self.ema}: must be at least 0 and below 1")
        if self.kind not in ("depth", "transformer"):
            raise ValueError(f"kind {self.kind!r}: known are depth, transformer")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule {self.schedule!r}: known are {', '.join(SCHEDULES)}")
