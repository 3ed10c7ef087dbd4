"""Settings that choose the clips of a corpus, the same for every verb and recipe."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass

from tokgen.runs.checks import closest

__all__ = ["HUB_DATASET", "CorpusSettings", "check_corpus", "check_lengths"]

HUB_DATASET = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")  # owner/name or owner/name:config


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """Choose the clips of a corpus.

    Attributes:
        corpus: folder of audio, .parquet file or folder of them, saved dataset, a URL of one of
            these (s3://, gs://, hf:// ...), or hub dataset.
        split: split to read; all splits by default.
        min_seconds: leave out clips shorter than this.
        max_seconds: leave out clips longer than this.
        language: language of the speech, such as en, for clips whose corpus does not state it.
        follow_links: read files that links or metadata name outside the corpus' folder.
    """

    corpus: str
    split: str | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    language: str | None = None
    follow_links: bool = False

    def __post_init__(self) -> None:
        check_lengths(self.min_seconds, self.max_seconds)


def check_corpus(name: str) -> None:
    """Raise FileNotFoundError if a corpus is no file, folder, URL or name of a hub dataset.

    The hub and URLs are not looked up. A name in a folder of this machine is no hub dataset.
    """
    if "://" in name or os.path.exists(name):
        return
    folder, _, last = name.rpartition("/")
    hint = ""
    with suppress(OSError):
        hint = closest(last, os.listdir(folder or "."))
    if os.path.isdir(folder):
        raise FileNotFoundError(f"no folder or file {name}{hint}")
    if name.startswith(".") or not HUB_DATASET.fullmatch(name):
        about = hint or " (a hub dataset is named owner/name)"
        raise FileNotFoundError(f"no folder or file {name}{about}")


def check_lengths(min_seconds: float | None, max_seconds: float | None) -> None:
    """Raise ValueError if a duration is negative, or no duration is in the range."""
    for name, value in (("min_seconds", min_seconds), ("max_seconds", max_seconds)):
        if value is not None and not value >= 0:
            raise ValueError(f"{name} is {value:g}, but must be at least 0")
    if min_seconds is not None and max_seconds is not None and min_seconds > max_seconds:
        raise ValueError(f"min_seconds {min_seconds:g} is more than max_seconds {max_seconds:g}")
