"""Settings of a comparison of codecs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from tokgen.corpus.settings import check_corpus
from tokgen.drift.shifts import check_shift
from tokgen.evaluation import settings as evaluation
from tokgen.evaluation.metric import METRICS, OF_ROWS
from tokgen.evaluation.settings import MetricSettings
from tokgen.generation.settings import SamplingSettings, TaskSettings
from tokgen.modelling.settings import KINDS
from tokgen.runs.checks import check_least
from tokgen.training import settings as training
from tokgen.training.settings import ModelTrainingSettings
from tokgen.zoo.names import check_name

__all__ = [
    "MAY_CHANGE",
    "MAY_CHANGE_IN_TRAINING",
    "RELATIVE",
    "ComparisonSettings",
    "TelephoneSettings",
    "check_generators",
    "check_margins",
    "check_sources",
    "needs_floor",
]


RELATIVE = ("pesq",)  # metrics whose margins are shares of a span


@dataclass(frozen=True)
class TelephoneSettings:
    """Settings of the token telephone.

    Attributes:
        rounds: number of successive edits; 0 skips the telephone.
        n_clips: number of utterances, from the first on.
        gap_seconds: length of the edited region in seconds.
        moving: draw a new region in every round instead of editing the same region again.
        stable: decode every edit stably, so that codes outside it come back.
        shift: move the audio by this many samples before each edit, or "random", as in
            `tokgen.drift.shifts`. 0 does not move it.
        grid: "auto" finds the frame grid of the audio before each edit.
    """

    rounds: int = 8
    n_clips: int = 8
    gap_seconds: float = 0.75
    moving: bool = False
    stable: bool = False
    shift: int | Literal["random"] = 0
    grid: Literal["auto"] | None = None

    def __post_init__(self) -> None:
        check_shift(self.shift)
        if self.rounds < 0 or self.n_clips < 1 or not self.gap_seconds > 0:
            raise ValueError(
                f"rounds = {self.rounds}, n_clips = {self.n_clips}, gap_seconds = "
                f"{self.gap_seconds}: need at least 0, at least 1, and above 0"
            )


def check_margins(margins: Mapping[str, float]) -> None:
    """Raise ValueError for margins of metrics without a verdict, and for invalid margins."""
    judged = [n for n, metric in METRICS.items() if metric.better and n not in OF_ROWS]
    known = [*judged, "drift_pesq"]
    unknown = sorted(set(margins) - set(known))
    if unknown:
        raise ValueError(f"margins of {unknown}: judged are {', '.join(known)}")
    for name, margin in margins.items():
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin of {name} = {margin}: must be at least 0 and finite")
        if name in RELATIVE and margin > 1:
            raise ValueError(f"margin of {name} = {margin}: a share of its span, so at most 1")


@dataclass(frozen=True, kw_only=True)
class ComparisonSettings(ModelTrainingSettings, MetricSettings):
    """Compare codecs by generators that are trained on their tokens.

    Attributes:
        name: the run's folder is <runs>/<name>.
        runs: parent folder of the runs.
        tokens: token datasets to train on, folders or hub ids, of one codec each and of the same
            corpus; repeat the flag for each. By default `corpus` is tokenized. If they have no test
            split, 5 % of their rows become one.
        corpus: a folder, Parquet file, saved dataset or hub id; by default the included one. If it
            has no test split, 5 % of its clips become one. `tokens` need the one that they were
            made of, to compare with.
        test_corpus: corpus of the test split; None uses `corpus`.
        codec: names in the zoo, folders or hub ids; repeat the flag for each. By default speech-16k
            and speech-16k-code, or the codecs that `tokens` name. With `tokens`, in their order.
        conditioning: features to generate from, "mfcc" (the paper) or "log_mel"; "none" for the
            tasks "continue" and "infill".
        task: generation task.
        sampling: how codes are generated.
        generators: kinds of models to train on each codec's tokens, masked and delay (see
            `ModelSettings`), each a row of the table; by default the kind of `model`.
        seeds: number of trainings per codec, with seed, seed + 1 ...
        n_test: number of held-out utterances to generate, from the start of the test split.
        min_test_seconds: shorter test utterances are left out.
        generation_batch: utterances generated at once.
        margins: metric -> largest loss that does not matter, for the verdict "no worse". That of
            pesq is a share of the span from unconditional generation to resynthesis.
        drift_passes: encodings of the drift measurement; 0 skips it.
        phase: measure sensitivity to shifts too.
        telephone: repeated editing; 0 rounds skip it.
        n_saved: number of utterances to save as audio.
    """

    name: str = "compare_codecs"
    runs: str = "runs"
    tokens: list[str] = field(default_factory=list)
    corpus: str = ""
    test_corpus: str | None = None
    codec: list[str] = field(default_factory=list)
    conditioning: Literal["mfcc", "log_mel", "none"] = "mfcc"
    task: TaskSettings = field(default_factory=TaskSettings)
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    generators: list[Literal["masked", "delay"]] = field(default_factory=list)
    seeds: int = 1
    n_test: int = 100
    min_test_seconds: float = 0.0
    generation_batch: int = 16
    metrics: list[str] = field(
        default_factory=lambda: ["mos", "pesq", "cer", "speaker", "f0", "voicing"]
    )
    margins: dict[str, float] = field(default_factory=dict)
    drift_passes: int = 25
    phase: bool = False
    telephone: TelephoneSettings = field(default_factory=TelephoneSettings)
    n_saved: int = 24

    def __post_init__(self) -> None:
        super().__post_init__()
        MetricSettings.__post_init__(self)
        check_least(self, seeds=1, generation_batch=1, n_test=1)
        if whole := [name for name in OF_ROWS if name in self.metrics]:
            raise ValueError(
                f"metrics {whole}: compare whole rows, not clips; `tokgen score` measures them"
            )
        _check_data(self)
        check_generators(self)
        if self.drift_passes == 1 or self.drift_passes < 0:
            raise ValueError(f"drift_passes = {self.drift_passes}: give 2 or more, or 0 for none")
        check_margins(self.margins)
        if self.conditioning not in ("mfcc", "log_mel", "none"):
            raise ValueError(f"conditioning {self.conditioning!r}: known are mfcc, log_mel, none")
        if self.conditioning == "none" and self.task.name == "vocode":
            raise ValueError(
                "conditioning 'none' with task 'vocode': use mfcc, log_mel or another task"
            )


def _check_data(s: ComparisonSettings) -> None:
    """Set the default data, and raise ValueError for data that do not belong together."""
    if not s.tokens:
        object.__setattr__(s, "corpus", s.corpus or "recipes/data/allison")
        object.__setattr__(s, "codec", s.codec or ["speech-16k", "speech-16k-code"])
    for name, given in (("codecs", s.codec), ("tokens", s.tokens)):
        if len(set(given)) < len(given):
            raise ValueError(f"{name} {given}: give at least one, and each once")
    if not s.tokens:
        return
    if not s.corpus:
        raise ValueError(
            "tokens without corpus: give the corpus that they were made of, whose audio is what a "
            "comparison compares with"
        )
    if s.test_corpus:
        raise ValueError("test_corpus with tokens, which hold the test split: leave it out")
    if s.codec and len(s.codec) != len(s.tokens):
        raise ValueError(
            f"{len(s.codec)} codecs for {len(s.tokens)} token datasets: give one for each, in "
            "their order, or none to use those that the tokens name"
        )


def check_generators(s: ComparisonSettings) -> None:
    """Raise ValueError for kinds of models that are unknown, or cannot do what is asked of them."""
    kinds = s.generators or [s.model.kind]
    if len(set(kinds)) < len(kinds) or not set(kinds) <= set(KINDS):
        raise ValueError(f"generators {kinds}: give each once, known are {', '.join(KINDS)}")
    if "delay" in kinds and s.task.name == "infill":
        raise ValueError("generators delay with task infill: it only continues; use vocode")
    if "masked" not in kinds and s.telephone.rounds:
        raise ValueError(
            f"generators {kinds} with telephone.rounds = {s.telephone.rounds}: repeated editing "
            "needs a masked model; set telephone.rounds to 0, or add masked"
        )


def needs_floor(s: ComparisonSettings) -> bool:
    """Return whether PESQ's margin needs unconditional generation, and the task allows it."""
    conditioned = s.task.name == "vocode" or s.task.conditioned
    return "pesq" in s.margins and "pesq" in s.metrics and conditioned and s.conditioning != "none"


def check_sources(s: ComparisonSettings) -> None:
    """Raise FileNotFoundError if a codec or corpus does not exist. Hubs are not looked up."""
    for codec in s.codec:
        check_name(codec)
    for corpus in (s.corpus, s.test_corpus):
        if corpus:
            check_corpus(corpus)


# These may change when a training of a comparison continues. "name" is that of the comparison.
MAY_CHANGE_IN_TRAINING = (
    *(*training.MAY_CHANGE, "name", "runs", "test_corpus", "n_test", "min_test_seconds"),
    *(*evaluation.MAY_CHANGE, "sampling", "generation_batch", "margins", "n_saved", "seeds"),
    *("drift_passes", "phase", "telephone", "task", "generators", "tokens"),
)
# These may change when a comparison continues: their results are stored by content.
MAY_CHANGE = (*(name for name in MAY_CHANGE_IN_TRAINING if name != "name"), "codec")
