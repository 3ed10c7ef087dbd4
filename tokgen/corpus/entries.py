"""What a corpus is listed into, and the first source: folders of audio.

A `list_*` function (here and in `corpus_tables`) files light entries in a `Catalogue` and
returns the `AudioStore` that fetches the audio of one entry later.
"""

from __future__ import annotations

import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SPLIT_NAMES = {"train": "train", "test": "test", "validation": "validation"} | dict.fromkeys(
    ("val", "valid", "dev"), "validation"
)


@dataclass(frozen=True)
class Entry:
    """One utterance without its audio.

    Attributes:
        id: unique in its corpus; may hold slashes and any letter.
        source: what people are shown: a path, or a file and row.
        text: transcript, None where there is none.
        speaker: None where unknown.
        split: "train", "validation", "test", or the corpus' own name.
        seconds: by the header or the corpus' own column; None where nobody says.
        key: position in the corpus' store.
    """

    id: str
    source: str
    text: str | None
    speaker: str | None
    split: str
    seconds: float | None
    key: int = field(default=-1, repr=False)


@dataclass(frozen=True)
class Rejection:
    """Something that is left out, and why."""

    source: str
    reason: str


def assign_split(id: str) -> str:
    """Split of an utterance whose corpus has none: 90/5/5 by SHA-256 of its id."""
    part = int.from_bytes(hashlib.sha256(id.encode("utf-8", "replace")).digest()[:8], "big") % 100
    return "train" if part < 90 else "validation" if part < 95 else "test"


class Catalogue:
    """Collects entries with unique ids, and what was left out."""

    def __init__(self, *, require_text: bool = False) -> None:
        self.entries: list[Entry] = []
        self.rejections: list[Rejection] = []
        self.require_text = require_text
        self._sources: dict[str, str] = {}

    def __contains__(self, id: str) -> bool:
        return id in self._sources

    def source_of(self, id: str) -> str | None:
        """Where the utterance `id` was found, None if there is none."""
        return self._sources.get(id)

    def reject(self, source: str, reason: str) -> None:
        self.rejections.append(Rejection(source, reason))

    def add(self, key: int, id: str, source: str, fields: Mapping[str, Any]) -> None:
        """File an utterance; `fields` may hold text, speaker, split and seconds."""
        if id in self._sources:
            self.reject(source, f"duplicate id {id!r}: {self._sources[id]} has it already")
            return
        self._sources[id] = source
        if not _is_text(id, *(v for v in fields.values() if isinstance(v, str))):
            self.reject(source, "metadata that is not valid Unicode (a lone surrogate)")
            return
        text = string(fields.get("text"))
        if self.require_text and text is None:
            self.reject(source, "missing transcript, and one is required")
            return
        split = string(fields.get("split"))
        split = assign_split(id) if split is None else SPLIT_NAMES.get(split.lower(), split)
        seconds = fields.get("seconds")
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            seconds = None
        speaker = string(fields.get("speaker"))
        self.entries.append(Entry(id, source, text, speaker, split, seconds, key))


def _is_text(*strings: str) -> bool:
    """Whether all can be written as UTF-8: JSON can smuggle half of a character pair in."""
    return not any("\ud800" <= c <= "\udfff" for s in strings for c in s)


def string(value: Any) -> str | None:
    """None for nothing or blanks."""
    return None if value is None else str(value).strip() or None


class AudioStore(ABC):
    """Fetches encoded audio by an entry's key. One thread at a time; picklable.

    Attributes:
        is_local: whether all of it is on this machine.
    """

    is_local: bool = True

    @abstractmethod
    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        """The file, or its bytes, and a name whose suffix tells the format.

        Raises:
            AudioError: it is not there.
        """

    @contextmanager
    def borrow(self, key: int) -> Iterator[tuple[Path | bytes, str]]:
        """What `fetch` gives, as long as it is in use: large audio may be a temporary file."""
        yield self.fetch(key)

    def stamp(self, key: int) -> str | None:
        """What changes when the audio does, without reading it; None where its bytes must do."""
        return None


def stem(name: str) -> str:
    return os.path.splitext(name)[0]
