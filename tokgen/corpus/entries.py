"""What a corpus is listed into, and the first source: folders of audio.

A `list_*` function (here and in `corpus_tables`) files light entries in a `Catalogue` and
returns the `AudioStore` that fetches the audio of one entry later.
"""

from __future__ import annotations

import hashlib
import math
import os
import posixpath
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from tokgen.audio.files import AUDIO_SUFFIXES, display_name, read_duration
from tokgen.corpus.metadata import is_metadata, read_metadata

_PAPERS = ("readme", "license", "licence", "copying", "copyright", "attribution", "changelog")
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


class FolderStore(AudioStore):
    """Files by position in a list."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __getstate__(self) -> dict[str, Any]:
        return {"files": [path.absolute() for path in self.files]}  # for other working folders

    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        return self.files[key], display_name(self.files[key])


def list_folder(folder: Path, catalogue: Catalogue) -> FolderStore:
    """A folder of audio, searched deep; see `list_files`."""
    files, others = _walk(folder)
    list_files(
        catalogue,
        [FoundFile(_inside(p, folder), display_name(p), partial(_open_text, p)) for p in files],
        [
            FoundFile(_inside(p, folder), display_name(p), partial(_open_text, p), p.is_file())
            for p in others
        ],
        root=str(folder.resolve()),
        seconds=lambda key: read_duration(files[key]),
    )
    return FolderStore(files)


def _open_text(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", newline="")


@dataclass(frozen=True)
class FoundFile:
    """A file of a folder.

    Attributes:
        inside: path in the folder, with slashes, composed Unicode.
        source: what people are shown.
        open: opens it as text (UTF-8, line ends as they are).
        is_file: rather than a pipe, a link to nowhere ...
    """

    inside: str
    source: str
    open: Callable[[], TextIO]
    is_file: bool = True


def list_files(
    catalogue: Catalogue,
    files: Sequence[FoundFile],
    others: Sequence[FoundFile],
    *,
    root: str,
    seconds: Callable[[int], float | None] | None = None,
) -> None:
    """List audio files; metadata.csv or metadata.jsonl add text and more. Keys are positions.

    Ids are paths inside the folder without suffix, unless metadata gives them. The top
    folder's name is the split where it is one ("train/", "dev/" ...). Files that are neither
    audio, metadata, paperwork (README, LICENSE ...) nor companions of an audio file by name
    are reported.

    Args:
        catalogue: gets them.
        files: audio by their names.
        others: not.
        root: absolute path or URL of the folder, as absolute paths in metadata begin.
        seconds: measures the duration of an audio file; without it, metadata may tell.
    """
    names = [file.inside for file in files]
    described = read_metadata(
        {other.inside: other.open for other in others if is_metadata(other.inside)},
        names,
        root,
        catalogue.reject,
    )
    stems = {stem(name) for name in names}
    for other in others:
        bare, suffix = os.path.splitext(posixpath.basename(other.inside))
        companion = other.is_file and stem(other.inside) in stems
        if not (companion or is_metadata(other.inside) or bare.lower().startswith(_PAPERS)):
            catalogue.reject(other.source, f"not audio by its name ({suffix or 'no suffix'})")
    bar = tqdm(names, desc=f"listing {posixpath.basename(root)}", unit="file", delay=2)
    for key, name in enumerate(bar):
        top = name.split("/")[0] if "/" in name else ""
        fields = {"split": SPLIT_NAMES.get(top.lower())} | described.get(key, {})
        if seconds is not None:
            fields["seconds"] = seconds(key)
        catalogue.add(key, fields.get("id") or stem(name), files[key].source, fields)


def _walk(folder: Path) -> tuple[list[Path], list[Path]]:
    """Audio files and other files, in a stable order; hidden ones are left out."""
    audio: list[Path] = []
    others: list[Path] = []
    for where, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(where, name)
                (audio if path.suffix.lower() in AUDIO_SUFFIXES else others).append(path)
    return audio, others


def holds_audio(folder: Path) -> bool:
    """Whether `list_folder` would find any file that is audio by its name."""
    return bool(_walk(folder)[0])


def _inside(path: Path, folder: Path) -> str:
    """Path relative to the corpus, slashes, composed Unicode."""
    name = display_name(path.relative_to(folder)).replace(os.sep, "/")
    return unicodedata.normalize("NFC", name)


def stem(name: str) -> str:
    return os.path.splitext(name)[0]
