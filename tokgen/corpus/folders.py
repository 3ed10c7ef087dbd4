"""Folders of audio files as a corpus."""

from __future__ import annotations

import os
import posixpath
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from tokgen.audio.files import AUDIO_SUFFIXES, display_name, read_duration
from tokgen.corpus.entries import SPLIT_NAMES, AudioStore, Catalogue, stem
from tokgen.corpus.metadata import is_metadata, read_metadata

_PAPERS = ("readme", "license", "licence", "copying", "copyright", "attribution", "changelog")


class FolderStore(AudioStore):
    """Local audio files, by position in a list."""

    def __init__(self, files: Sequence[Path]) -> None:
        self.files = files

    def __getstate__(self) -> dict[str, Any]:  # a worker may have another working folder
        return {"files": [path.absolute() for path in self.files]}

    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        return self.files[key], display_name(self.files[key])


def list_folder(folder: Path, catalogue: Catalogue) -> FolderStore:
    """List a local folder and its subfolders; see `list_files`."""
    files, others = _walk(folder)

    def found(path: Path) -> FoundFile:
        name = display_name(path.relative_to(folder)).replace(os.sep, "/")
        inside = unicodedata.normalize("NFC", name)
        return FoundFile(inside, display_name(path), partial(_open_text, path), path.is_file())

    list_files(
        catalogue,
        [found(path) for path in files],
        [found(path) for path in others],
        root=str(folder.resolve()),
        seconds=lambda key: read_duration(files[key]),
    )
    return FolderStore(files)


def _open_text(path: Path) -> TextIO:
    return path.open(encoding="utf-8-sig", newline="")


@dataclass(frozen=True)
class FoundFile:
    """A file in a corpus' folder.

    Attributes:
        inside: path inside the folder, with slashes, in composed Unicode (NFC).
        source: for messages.
        open: opens the file as UTF-8 text, with line ends as they are.
        is_file: False for a pipe, a broken link and so on.
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
    """List audio files. An entry's key is the file's position.

    metadata.csv and metadata.jsonl add texts, speakers, splits and durations. An id is the path
    inside the folder without suffix, unless metadata has an id. If the top folder is named like
    a split ("train/", "dev/" ...), it is the split. A file is reported if it is not audio,
    metadata, a document (README, LICENSE ...) or named like an audio file.

    Args:
        catalogue: receives the entries.
        files: files with the suffix of an audio format.
        others: all other files.
        root: absolute path or URL of the folder, to resolve absolute paths in metadata.
        seconds: measures the duration of an audio file; None uses durations in metadata only.
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
    """Return audio files and other files, in a stable order, without hidden ones."""
    audio: list[Path] = []
    others: list[Path] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                path = Path(parent, name)
                (audio if path.suffix.lower() in AUDIO_SUFFIXES else others).append(path)
    return audio, others


def holds_audio(folder: Path) -> bool:
    """Return whether `list_folder` would find a file with the suffix of an audio format."""
    return bool(_walk(folder)[0])
