"""Settings of an ablation of the variable bitrate. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from tokgen.codec_training.settings import CodecTrainingSettings, check_sources
from tokgen.quantizers.settings import SURROGATES, VariableSettings
from tokgen.runs.checks import check_least
from tokgen.zoo.names import check_name

__all__ = [
    "PAPER",
    "Condition",
    "VariableAblationSettings",
    "cell_of",
    "check_variable_ablation",
    "conditions_of",
]

PAPER = "logcosh"  # the surrogate of the paper


class Condition(NamedTuple):
    """The surrogate of one row."""

    label: str
    surrogate: str
    alpha: float


def _training() -> CodecTrainingSettings:
    return CodecTrainingSettings(quantizer="variable", start_from="speech-16k", steps=400)


@dataclass(frozen=True)
class VariableAblationSettings:
    """Train codecs of variable bitrate under several surrogates and seeds, and compare them.

    Every codec is measured on the validation clips of `training`: the spread of its importance,
    and its scores at some bitrates, with a variable rate and with a constant one.

    Attributes:
        name: the run's folder is runs/<name>.
        alphas: sharpnesses of the paper's surrogate, "logcosh".
        surrogates: more surrogates, with the sharpness `training.variable.alpha`.
        bitrates: kbps at which codecs are scored. Between two numbers of levels, the score at a
            constant rate is interpolated.
        seeds: trainings of each condition.
        training: settings that all trainings share; the quantizer must be "variable".
        n_resamples: of the intervals.
        runs: parent folder of the runs.
    """

    name: str = "variable_ablation"
    alphas: list[float] = field(default_factory=lambda: [1.0, 2.0, 4.0, 128.0])
    surrogates: list[str] = field(default_factory=lambda: [PAPER, "square", "sigmoid"])
    bitrates: list[float] = field(default_factory=lambda: [1.5, 2.0, 3.0])
    seeds: int = 2
    training: CodecTrainingSettings = field(default_factory=_training)
    n_resamples: int = 2000
    runs: str = "runs"

    def __post_init__(self) -> None:
        check_least(self, seeds=1, n_resamples=100)
        if self.training.quantizer != "variable":
            raise ValueError(
                f"training.quantizer {self.training.quantizer!r}: the ablation is of a variable "
                "bitrate; set it to variable"
            )
        if self.training.validation_split == "test":
            raise ValueError(
                "training.validation_split 'test': settings are chosen by these scores; use "
                "another split"
            )
        unknown = [x for x in self.surrogates if x not in SURROGATES]
        if unknown:
            raise ValueError(f"surrogate {unknown[0]!r}: known are {', '.join(SURROGATES)}")
        if not self.bitrates or min(self.bitrates) <= 0:
            raise ValueError(f"bitrates = {self.bitrates}: give at least one, all above 0 kbps")
        if not conditions_of(self):
            raise ValueError("alphas and surrogates are empty: give at least one")
        for condition in conditions_of(self):
            cell_of(self, condition, 0)


def conditions_of(s: VariableAblationSettings) -> list[Condition]:
    """Return the rows: the paper's surrogate with each sharpness, then the other surrogates."""
    own = s.training.variable.alpha
    pairs = [(PAPER, alpha) for alpha in s.alphas]
    pairs += [(name, own) for name in s.surrogates if name != PAPER or own not in s.alphas]
    return [
        Condition(name if name == "square" else f"{name}, alpha {alpha:g}", name, alpha)
        for name, alpha in dict.fromkeys(pairs)
    ]


def cell_of(s: VariableAblationSettings, condition: Condition, seed: int) -> CodecTrainingSettings:
    """Return the settings of one training, except its name and parent folder."""
    variable: VariableSettings = replace(
        s.training.variable, surrogate=condition.surrogate, alpha=condition.alpha
    )
    return replace(s.training, variable=variable, seed=seed)


def check_variable_ablation(s: VariableAblationSettings) -> None:
    """Raise FileNotFoundError if the codec or a corpus does not exist. Hubs are not looked up."""
    check_sources(s.training)
    if s.training.start_from:
        check_name(s.training.start_from)
