"""Settings that choose the clips of a corpus, the same for every verb and recipe."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from tokgen.corpus.layouts import LAYOUTS, find_layout
from tokgen.runs.checks import closest

__all__ = [
    "HUB_DATASET",
    "WHERE",
    "CorpusSettings",
    "check_corpus",
    "check_lengths",
    "parse_where",
    "split_sources",
]

WHERE = ("language", "speaker")  # what clips can be chosen by

HUB_DATASET = re.compile(r"[\w.-]+/[\w.-]+(:[\w.-]+)?")  # owner/name or owner/name:config


@dataclass(frozen=True, kw_only=True)
class CorpusSettings:
    """Choose the clips of a corpus.

    Attributes:
        corpus: folder of audio, .parquet file or folder of them, saved dataset, a URL of one of
            these (s3://, gs://, hf:// ...), or hub dataset. A prefix such as vctk: names a
            published layout, and commas separate several corpora.
        split: split to read; all splits by default.
        where: clips to keep, as language=en or speaker=ann,ben.
        min_seconds: leave out clips shorter than this.
        max_seconds: leave out clips longer than this.
        language: language of the speech, such as en, for clips whose corpus does not state it.
        follow_links: read files that links or metadata name outside the corpus' folder.
    """

    corpus: str
    split: str | None = None
    where: str | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    language: str | None = None
    follow_links: bool = False

    def __post_init__(self) -> None:
        check_lengths(self.min_seconds, self.max_seconds)
        if self.where is not None:
            parse_where(self.where)


def split_sources(source: str | Path | Sequence[str | Path]) -> list[str | Path]:
    """Return the corpora that a source names: "a.parquet,vctk:b" names two.

    A path that exists is one corpus, and so is a URL with a query.
    """
    if isinstance(source, Path):
        return [source]
    if not isinstance(source, str):
        return list(source)
    if os.path.exists(find_layout(source)[1]) or ("://" in source and "?" in source):
        return [source]
    return [part.strip() for part in source.split(",") if part.strip()] or [source]


def parse_where(where: str) -> tuple[str, list[str]]:
    """Return the field and the values of a condition such as "language=en" or "speaker=ann,ben".

    Raises:
        ValueError: it is no such condition.
    """
    field, _, values = where.partition("=")
    chosen = [value.strip() for value in values.split(",") if value.strip()]
    if field.strip() not in WHERE or not chosen:
        known = " or ".join(f"{name}=VALUE" for name in WHERE)
        raise ValueError(f"where is {where!r}: write {known}, with commas between several values")
    return field.strip(), chosen


def check_corpus(name: str) -> None:
    """Raise FileNotFoundError if a corpus is no file, folder, URL or name of a hub dataset.

    A list of corpora and a layout's prefix are allowed. The hub and URLs are not looked up. A name
    in a folder of this machine is no hub dataset.
    """
    for source in split_sources(name):
        _check_one(find_layout(str(source))[1])


def _check_one(name: str) -> None:
    if "://" in name or os.path.exists(name):
        return
    folder, _, last = name.rpartition("/")
    hint = ""
    with suppress(OSError):
        hint = closest(last, os.listdir(folder or "."))
    if os.path.isdir(folder):
        raise FileNotFoundError(f"no folder or file {name}{hint}")
    if name.startswith(".") or not HUB_DATASET.fullmatch(name):
        prefix = name.partition(":")[0] if ":" in name else ""
        about = hint or closest(prefix, LAYOUTS) or " (a hub dataset is named owner/name)"
        raise FileNotFoundError(f"no folder or file {name}{about}")


def check_lengths(min_seconds: float | None, max_seconds: float | None) -> None:
    """Raise ValueError if a duration is negative, or no duration is in the range."""
    for name, value in (("min_seconds", min_seconds), ("max_seconds", max_seconds)):
        if value is not None and not value >= 0:
            raise ValueError(f"{name} is {value:g}, but must be at least 0")
    if min_seconds is not None and max_seconds is not None and min_seconds > max_seconds:
        raise ValueError(f"min_seconds {min_seconds:g} is more than max_seconds {max_seconds:g}")
