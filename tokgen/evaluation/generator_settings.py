"""Settings that recipes share which train a generator and score what it generates."""

# No postponed annotations: jsonargparse could not evaluate them in the modules of subclasses.
from dataclasses import dataclass, field
from typing import Literal

from tokgen.corpus.settings import check_corpus
from tokgen.evaluation import settings as evaluation
from tokgen.evaluation.settings import MetricSettings
from tokgen.generation.settings import SamplingSettings
from tokgen.runs.checks import check_least
from tokgen.training import settings as training
from tokgen.training.settings import ModelTrainingSettings
from tokgen.zoo.names import check_name

__all__ = ["MAY_CHANGE", "GeneratorSettings", "check_sources"]


@dataclass(frozen=True, kw_only=True)
class GeneratorSettings(ModelTrainingSettings, MetricSettings):
    """Settings of the training of a generator, of its test utterances and of their scores.

    Attributes:
        name: the run's folder is runs/<name>.
        tokens: token dataset to train on, a folder or hub id; None tokenizes `corpus`. If it has no
            test split, 5 % of its rows become one.
        corpus: a folder, Parquet file, saved dataset or hub id; None is the included one. If it has
            no test split, 5 % of its clips become one. With `tokens`, the audio to compare with:
            None uses decoded codes.
        codec: a name in the zoo, a folder or a hub id; None is the codec that `tokens` name, or
            speech-16k.
        conditioning: features of each frame, "mfcc" (the paper) or "log_mel".
        sampling: how codes are generated.
        n_test: number of held-out utterances to generate, from the start of the test split.
        test_corpus: corpus of the test split; None uses `corpus`.
        min_test_seconds: shorter test utterances are left out.
        generation_batch: utterances generated at once.
        n_saved: number of utterances to save as audio.
        runs: parent folder of the runs.
    """

    name: str = "generator"
    tokens: str | None = None
    corpus: str | None = None
    codec: str | None = None
    conditioning: Literal["mfcc", "log_mel"] = "mfcc"
    sampling: SamplingSettings = field(default_factory=SamplingSettings)
    n_test: int = 100
    test_corpus: str | None = None
    min_test_seconds: float = 0.0
    generation_batch: int = 16
    n_saved: int = 8
    runs: str = "runs"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.tokens is None:
            object.__setattr__(self, "corpus", self.corpus or "recipes/data/allison")
            object.__setattr__(self, "codec", self.codec or "speech-16k")
        elif self.test_corpus:
            raise ValueError("test_corpus with tokens, which hold the test split: leave it out")
        MetricSettings.__post_init__(self)
        check_least(self, n_test=1, min_test_seconds=0, generation_batch=1, n_saved=0)


def check_sources(s: GeneratorSettings) -> None:
    """Raise FileNotFoundError if the codec or a corpus does not exist. Hubs are not looked up."""
    if s.codec is not None:
        check_name(s.codec)
    for corpus in (s.corpus, s.test_corpus):
        if corpus:
            check_corpus(corpus)


# These may change when a run continues: they do not affect the trained weights.
MAY_CHANGE = (
    *(*training.MAY_CHANGE, *evaluation.MAY_CHANGE, "n_test", "test_corpus", "min_test_seconds"),
    *("sampling", "generation_batch", "n_saved", "runs"),
)
