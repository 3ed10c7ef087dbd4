"""Settings that choose the clips of a corpus, the same for every verb and recipe."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CorpusSettings", "check_lengths"]


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """Choose the clips of a corpus.

    Attributes:
        corpus: folder of audio, .parquet file or folder of them, saved dataset, a URL of one of
            these (s3://, gs://, hf:// ...), or hub dataset.
        split: split to read; all splits by default.
        min_seconds: leave out clips shorter than this.
        max_seconds: leave out clips longer than this.
    """

    corpus: str
    split: str | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None

    def __post_init__(self) -> None:
        check_lengths(self.min_seconds, self.max_seconds)


def check_lengths(min_seconds: float | None, max_seconds: float | None) -> None:
    """Raise ValueError if no duration is in the range."""
    if min_seconds is not None and max_seconds is not None and min_seconds > max_seconds:
        raise ValueError(f"min_seconds {min_seconds:g} is more than max_seconds {max_seconds:g}")
