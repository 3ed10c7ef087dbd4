"""Settings of an ablation of drift: which losses stop it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, NamedTuple

from tokgen.codec_training.settings import LOSSES, TuningSettings, check_sources
from tokgen.corpus.settings import check_corpus
from tokgen.runs.checks import check_least
from tokgen.zoo.names import check_name

__all__ = ["AblationSettings", "Condition", "cell_of", "check_ablation", "conditions_of"]


class Condition(NamedTuple):
    """The training settings of one row of an ablation.

    Attributes:
        label: name of the row.
        changes: `TuningSettings` that differ from the others'.
        than: label of the row that it is compared with, besides the control; "" for none.
    """

    label: str
    changes: dict[str, Any]
    than: str = ""


@dataclass(frozen=True)
class AblationSettings:
    """Tune a codec under several conditions and seeds, and compare their drift.

    Attributes:
        name: the run's folder is runs/<name>.
        codec: the codec that is tuned; its stages must be open.
        loss: idempotence losses, "none" among them as the control.
        later_weight: weights of the mel and spectral losses of later passes; 0 is off.
        weight: weights of the idempotence losses by name. A loss without one gets the largest
            weight of `tuning.sweep` whose validation loss holds in its first condition, tuned as
            long as the others; the smallest if none holds.
        extra: more conditions by label, as the `TuningSettings` that they change.
        seeds: trainings of each condition.
        tuning: settings that all trainings share.
        corpus: test corpora.
        split: split of them.
        where: part of them, as in `open_corpus`.
        min_seconds: shorter clips are left out.
        passes: encodings of a test clip.
        scored: passes whose audio is scored; the last must be `passes`.
        shifts: samples by which a clip moves between passes, and "random"; 0 does not move it.
        n_resamples: of the intervals.
        runs: parent folder of the runs.
    """

    name: str = "drift_ablation"
    codec: str = "speech-16k"
    loss: list[str] = field(default_factory=lambda: ["none", *LOSSES])
    later_weight: list[float] = field(default_factory=lambda: [0.0, 1.0])
    weight: dict[str, float] = field(default_factory=dict)
    extra: dict[str, dict[str, Any]] = field(default_factory=dict)
    seeds: int = 3
    tuning: TuningSettings = field(default_factory=TuningSettings)
    corpus: list[str] = field(default_factory=lambda: ["recipes/data/allison"])
    split: str = "test"
    where: str | None = None
    min_seconds: float = 1.0
    passes: int = 25
    scored: list[int] = field(default_factory=lambda: [1, 2, 4, 8, 16, 25])
    shifts: list[int | Literal["random"]] = field(default_factory=lambda: [0, "random"])
    n_resamples: int = 2000
    runs: str = "runs"

    def __post_init__(self) -> None:
        check_least(self, seeds=1, passes=2, min_seconds=0, n_resamples=100)
        unknown = [x for x in (*self.loss, *self.weight) if x not in ("none", *LOSSES)]
        if unknown:
            raise ValueError(f"loss {unknown[0]!r}: known are none, {', '.join(LOSSES)}")
        if not self.loss or not self.later_weight or not self.shifts:
            raise ValueError("loss, later_weight and shifts must not be empty")
        known = {f.name for f in fields(TuningSettings)}
        for label, changes in self.extra.items():
            if wrong := set(changes) - known:
                raise ValueError(
                    f"extra {label!r}: unknown setting {sorted(wrong)[0]!r}; known are those of "
                    "tune_idempotence"
                )
        if not self.scored or sorted(self.scored)[-1] != self.passes or min(self.scored) < 1:
            raise ValueError(
                f"scored = {self.scored}: must be passes from 1 to {self.passes}, and "
                f"{self.passes} among them"
            )
        for condition in conditions_of(self):
            cell_of(self, condition, seed=0)


def conditions_of(s: AblationSettings) -> list[Condition]:
    """Return the rows: each loss with each weight of the later passes, then `extra`."""
    found = []
    for later in s.later_weight:
        for loss in s.loss:
            label = loss if not later else f"{loss} + later"
            if later and len([x for x in s.later_weight if x]) > 1:
                label += f" x {later:g}"
            found.append(
                Condition(
                    label,
                    {"loss": loss, "later_weight": later},
                    than=loss if later and 0 in s.later_weight else "",
                )
            )
    labels = {condition.label for condition in found}
    for label, changes in s.extra.items():
        if label in labels:
            raise ValueError(f"extra {label!r}: this is the label of another condition")
        found.append(Condition(label, dict(changes), than=str(found[0].label)))
    return found


def cell_of(
    s: AblationSettings, condition: Condition, *, seed: int, weight: float | None = None
) -> TuningSettings:
    """Return the settings of one training, except its name and parent folder."""
    changes: Mapping[str, Any] = {**condition.changes, "seed": seed, "codec": s.codec}
    cell = replace(s.tuning, **changes)
    chosen = s.weight.get(cell.loss) if weight is None else weight
    if "weight" not in condition.changes and chosen is not None:
        cell = replace(cell, weight=chosen)
    return cell


def check_ablation(s: AblationSettings) -> None:
    """Raise FileNotFoundError if the codec or a corpus does not exist. Hubs are not looked up."""
    check_sources(replace(s.tuning, codec=s.codec))
    check_name(s.codec)
    for corpus in s.corpus:
        check_corpus(corpus)
