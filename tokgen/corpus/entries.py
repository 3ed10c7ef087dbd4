"""Entries of a corpus (utterances without their audio), and the stores that fetch the audio.

A `list_*` function (in `folders`, `tables` or `hub`) adds the entries of a corpus to a
`Catalogue`. It returns the `AudioStore` that fetches their audio later.
"""

from __future__ import annotations

import hashlib
import math
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokgen.audio.sources import AudioError
from tokgen.corpus.splits import LONGEST_SPLIT, SPLIT_NAMES, assign_split
from tokgen.results import printable

__all__ = [
    "AudioStore",
    "Catalogue",
    "Entry",
    "Rejection",
    "shorten",
    "stem",
    "string",
]

_EDGE = 64 << 10  # bytes of a file's start and of its end that enter the fingerprint


@dataclass(frozen=True)
class Entry:
    """One utterance without its audio.

    Attributes:
        id: unique in its corpus; may contain slashes and any letter.
        source: for messages: a path, or a file and row.
        text: transcript, or None.
        speaker: name or id, or None.
        split: "train", "validation", "test", or the corpus' own name.
        seconds: duration by the file's header or the corpus' own column; None if unknown.
        key: position in the corpus' `AudioStore`.
        language: of the speech, as the corpus states it ("en", "en-US", "English"), or None.
    """

    id: str
    source: str
    text: str | None
    speaker: str | None
    split: str
    seconds: float | None
    key: int = field(default=-1, repr=False)
    language: str | None = None

    def fits(self, field: str, values: Sequence[str]) -> bool:
        """Return whether the language or speaker is one of the values.

        The language "en" fits "en-US" and "en_GB" too.
        """
        found = getattr(self, field)
        if found is None:
            return False
        if field != "language":
            return found in values
        plain = found.lower().replace("_", "-")
        wanted = [value.lower().replace("_", "-") for value in values]
        return plain in wanted or plain.split("-")[0] in wanted


@dataclass(frozen=True)
class Rejection:
    """Something that was left out of a corpus, and the reason."""

    source: str
    reason: str

    def __str__(self) -> str:
        """Return both on one short line that is safe to print."""
        return printable(f"{shorten(self.source)}: {shorten(self.reason)}")


def shorten(text: str, limit: int = 300) -> str:
    """Leave out the middle of a text of more than `limit` characters, for messages."""
    return text if len(text) <= limit else f"{text[: limit // 2]}…{text[-limit // 2 :]}"


class Catalogue:
    """Collects entries with unique ids, and rejections.

    Args:
        require_text: reject utterances without a transcript.
        language: of utterances whose language the corpus does not state.
    Attributes:
        entries: accepted utterances.
        rejections: files and utterances that were left out.
        sources: source of each utterance by its id, also of rejected ones.
    """

    def __init__(self, *, require_text: bool = False, language: str | None = None) -> None:
        self.entries: list[Entry] = []
        self.rejections: list[Rejection] = []
        self.sources: dict[str, str] = {}
        self.require_text, self.language = require_text, language

    def reject(self, source: str, reason: str) -> None:
        self.rejections.append(Rejection(source, reason))

    def add(self, key: int, id: str, source: str, fields: Mapping[str, Any]) -> None:
        """Add an utterance, or reject it.

        Args:
            key, id, source: as in `Entry`.
            fields: text, speaker, split, seconds and language, as far as they are known.
        """
        if id in self.sources:
            self.reject(source, f"duplicate id {id!r}: {self.sources[id]} has the same id")
            return
        self.sources[id] = source
        strings = [id, *(v for v in fields.values() if isinstance(v, str))]
        if any("\ud800" <= c <= "\udfff" for s in strings for c in s):  # from JSON; not UTF-8
            self.reject(source, "metadata that is not valid Unicode (a lone surrogate)")
            return
        text = string(fields.get("text"))
        if self.require_text and text is None:
            self.reject(source, "missing transcript, and one is required")
            return
        split = string(fields.get("split"))
        split = assign_split(id) if split is None else SPLIT_NAMES.get(split.lower(), split)
        if (size := len(split.encode())) > LONGEST_SPLIT:
            self.reject(source, f"split name of {size} bytes: the limit is {LONGEST_SPLIT}")
            return
        seconds = fields.get("seconds")
        if not isinstance(seconds, int | float) or not 0 <= seconds < math.inf:
            seconds = None
        speaker = string(fields.get("speaker"))
        language = fields.get("language")
        language = string(language) if isinstance(language, str) else None
        language = language or string(self.language)
        self.entries.append(Entry(id, source, text, speaker, split, seconds, key, language))


def string(value: Any) -> str | None:
    """Convert a value to a stripped string, or to None if nothing is left."""
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return None if value is None else str(value).strip() or None


class AudioStore(ABC):
    """Fetches encoded audio by an entry's key. Picklable, but not thread-safe.

    Attributes:
        is_local: whether all audio is on this machine.
    """

    is_local: bool = True

    @abstractmethod
    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        """Return a file or its bytes, and a name whose suffix tells the format.

        Raises:
            AudioError: the audio cannot be fetched.
        """

    @contextmanager
    def borrow(self, key: int) -> Iterator[tuple[Path | bytes, str]]:
        """Yield the result of `fetch`. Large audio may be a file that is deleted afterwards."""
        yield self.fetch(key)

    def stamp(self, key: int) -> str | None:
        """Return a string that changes with the audio, without reading the audio.

        None means that the audio must be read to notice a change.
        """
        return None

    def digest(self, key: int) -> str:
        """Return a string that changes with the audio, for fingerprints.

        It is made of the stamp, or else of the bytes, or of a file's size and its first and last
        64 kB.
        """
        try:
            if (stamp := self.stamp(key)) is not None:
                return stamp
            data, _ = self.fetch(key)
            if isinstance(data, bytes):
                return hashlib.sha256(data).hexdigest()
            size = data.stat().st_size
            with data.open("rb") as file:
                digest = hashlib.sha256(f"{size}\n".encode() + file.read(_EDGE))
                file.seek(max(0, size - _EDGE))
                digest.update(file.read(_EDGE))
            return digest.hexdigest()
        except (AudioError, OSError):
            return "unreadable"


def stem(name: str) -> str:
    """Return a path without its suffix."""
    return os.path.splitext(name)[0]
