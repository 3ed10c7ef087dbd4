"""Settings of the training loop and of whole trainings, and the learning rate."""

# No postponed annotations: jsonargparse could not evaluate them in the modules of subclasses.
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, Literal, TypeVar

from tokgen.modelling.settings import ModelSettings
from tokgen.modelling.text.settings import UNITS, TextModelSettings
from tokgen.runs.checks import check_least, check_positive, check_shares, closest

__all__ = [
    "FRAME_BUCKET",
    "MAY_CHANGE",
    "SCHEDULES",
    "CausalTrainingSettings",
    "LoopSettings",
    "ModelTrainingSettings",
    "TextTrainingSettings",
    "TrainingSettings",
    "learning_rate",
    "settings_of_call",
]

SCHEDULES = ("constant", "cosine")
FRAME_BUCKET = 32  # frames
# These may change when a training continues: they do not affect the trained weights.
MAY_CHANGE = ("checkpoint_every", "tracker", "workers")


@dataclass(frozen=True)
class LoopSettings:
    """Settings of the training loop, whatever is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: excerpts per process and pass.
        crop_seconds: length of an excerpt.
        learning_rate: AdamW's, after `warmup` steps.
        warmup: steps in which the learning rate rises from 0.
        schedule: "constant" or "cosine" (falls to 5 %).
        weight_decay: AdamW's.
        clip: limit of the gradient's norm.
        ema: decay of the averaged weights, which are validated and saved; 0 for none.
        gradient_accumulation: passes per optimiser step.
        log_every: steps between lines of the history.
        validate_every: steps between validations.
        checkpoint_every: steps between checkpoints.
        seed: seed of the excerpts and of what else is drawn.
    """

    steps: int = 100_000
    batch_size: int = 32
    crop_seconds: float = 5.0
    learning_rate: float = 1e-4
    warmup: int = 0
    schedule: Literal["constant", "cosine"] = "constant"
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.0
    gradient_accumulation: int = 1
    log_every: int = 20
    validate_every: int = 500
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, steps=1, batch_size=1, gradient_accumulation=1, warmup=0)
        check_least(self, log_every=1, validate_every=1, checkpoint_every=1, seed=0, weight_decay=0)
        check_positive(self, "crop_seconds", "learning_rate", "clip")
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema = {self.ema}: must be at least 0 and below 1")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule {self.schedule!r}: known are {', '.join(SCHEDULES)}")


@dataclass(frozen=True)
class TrainingSettings(LoopSettings):
    """Settings of a masked transformer's training, in addition to those of `LoopSettings`.

    The schedule of the paper is "constant".

    Attributes:
        conditioning_dropout: share of excerpts whose conditioning is hidden, for guidance.
        crop_seconds_min: if above 0, each batch draws one excerpt length between this and
            `crop_seconds`, and has utterances of similar lengths, for little padding. Lengths are
            multiples of 32 frames, so that `compile` sees few shapes.
        equal_tokens: with `crop_seconds_min`, batches of shorter excerpts have more of them.
        packing: several short utterances share a row; none attends to another.
        compile: run the network through torch.compile.
        workers: processes that prepare batches; 0 prepares them between steps.
    """

    conditioning_dropout: float = 0.2
    crop_seconds_min: float = 0.0
    equal_tokens: bool = False
    packing: bool = False
    compile: bool = False
    workers: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "conditioning_dropout")
        check_least(self, workers=0)
        if not 0 <= self.crop_seconds_min <= self.crop_seconds:
            raise ValueError(
                f"crop_seconds_min = {self.crop_seconds_min}: must be at most crop_seconds = "
                f"{self.crop_seconds}; with 0 all excerpts have that length"
            )
        if self.packing and self.crop_seconds_min:
            raise ValueError("packing with crop_seconds_min: use only one of the two")
        if self.equal_tokens and not self.crop_seconds_min:
            raise ValueError("equal_tokens without crop_seconds_min: set crop_seconds_min too")


@dataclass(frozen=True, kw_only=True)
class ModelTrainingSettings(TrainingSettings):
    """Settings of the training of a new model, in addition to those of `TrainingSettings`.

    Attributes:
        model: size of the transformer.
        mixed_precision: "auto" (bf16 if the hardware has it), "no", "bf16" or "fp16".
        tracker: "none", "tensorboard", "wandb" ...
    """

    model: ModelSettings = field(default_factory=ModelSettings)
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "auto"
    tracker: str = "none"


@dataclass(frozen=True, kw_only=True)
class CausalTrainingSettings(LoopSettings):
    """Settings of the training of a causal model of codes, in addition to those of `LoopSettings`.

    Attributes:
        kind: "depth" (levels of a frame one after another, for streams) or "transformer" (EnCodec's
            language model: all levels of a frame at once).
        model: sizes of the model that replace its own, such as {dim: 96, dropout: 0.1}.
        level_dropout: share of batches that have only the first levels, a random number of them, so
            that the model can code streams of fewer levels.
        mixed_precision: "auto" (bf16 if the hardware has it), "no", "bf16" or "fp16".
        tracker: "none", "tensorboard", "wandb" ...
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
    level_dropout: float = 0.1
    validate_every: int = 200
    checkpoint_every: int = 100
    mixed_precision: Literal["auto", "no", "bf16", "fp16"] = "no"
    tracker: str = "none"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_shares(self, "level_dropout")
        if self.kind not in ("depth", "transformer"):
            raise ValueError(f"kind {self.kind!r}: known are depth, transformer")


@dataclass(frozen=True, kw_only=True)
class TextTrainingSettings(LoopSettings):
    """Settings of the training of a text model, in addition to those of `LoopSettings`.

    Attributes:
        crop_seconds: longer clips are left out; the others are not cropped.
        unit: "characters", or "phonemes" of English (extra `phonemes`).
        size: size of the text model.
    """

    steps: int = 1500
    batch_size: int = 16
    crop_seconds: float = 16.0
    learning_rate: float = 1e-3
    warmup: int = 50
    schedule: Literal["constant", "cosine"] = "cosine"
    validate_every: int = 100
    checkpoint_every: int = 100
    unit: Literal["characters", "phonemes"] = "characters"
    size: TextModelSettings = field(default_factory=TextModelSettings)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.unit not in UNITS:
            raise ValueError(f"unit {self.unit!r}: known are {', '.join(UNITS)}")


Settings = TypeVar("Settings", bound=ModelTrainingSettings)


def settings_of_call(
    cls: type[Settings],
    call: str,
    preset: str | ModelSettings,
    given: Mapping[str, Any],
    **fixed: Any,
) -> Settings:
    """Make settings of a function's keyword arguments.

    Args:
        cls: class of the settings.
        call: name of the function.
        preset: name of a model's preset, or a model's settings.
        given: arguments that the caller chose.
        fixed: fields that the caller cannot choose.
    Raises:
        TypeError: a name in `given` is not a field, or is fixed.
        ValueError: a value is out of range.
    """
    known = [f.name for f in fields(cls) if f.name not in ("model", *fixed)]
    for name in given:
        if name not in known:
            hint = closest(name, known) or f"; known are {', '.join(known)}"
            if is_dataclass(given[name]):
                hint = f": pass its fields by name, such as {call}(..., steps=1000)"
            raise TypeError(f"{call}() has no setting {name!r}{hint}")
    model = preset if isinstance(preset, ModelSettings) else ModelSettings(preset)
    return cls(model=model, **given, **fixed)


def learning_rate(settings: LoopSettings, step: int) -> float:
    """Learning rate of a step, counted from 0."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "constant":
        return settings.learning_rate * rise
    fall = 0.05 + 0.95 * (1 + math.cos(math.pi * step / settings.steps)) / 2
    return settings.learning_rate * (rise * fall)
