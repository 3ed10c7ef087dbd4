"""Settings that choose the clips of a corpus, the same for every verb and recipe."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CorpusSettings"]


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
