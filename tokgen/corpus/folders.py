"""TODO folders"""

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
