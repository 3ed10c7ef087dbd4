"""Find the files of a corpus on this machine or behind a URL, and list audio files.

Listing a remote folder asks for names, sizes and checksums, and reads metadata files and the
small columns of tables. An audio file is fetched when it is decoded. Tokenizing fetches a
remote recording of more than a minute once for the codes, once for the conditioning, and once more
if its duration is unknown.
"""

from __future__ import annotations

import io
import os
import posixpath
import re
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TextIO

from tokgen.audio.files import AUDIO_SUFFIXES, display_name, read_duration
from tokgen.corpus.entries import AudioStore, Catalogue, Rejection, stem
from tokgen.corpus.links import walk, why_unreadable
from tokgen.corpus.metadata import is_metadata, read_metadata
from tokgen.corpus.parquet import list_parquet
from tokgen.corpus.remote import RemoteFile, as_audio_error, read_audio_file, without_query
from tokgen.corpus.saved import SAVED
from tokgen.corpus.splits import SPLIT_NAMES, assign_split
from tokgen.corpus.tables import list_saved
from tokgen.runs.progress import progress_bar
from tokgen.storage import find_filesystem, patiently

__all__ = [
    "HELD_BYTES",
    "FileStore",
    "Files",
    "Found",
    "find_files",
    "list_audio",
    "list_files",
    "open_text",
    "path_inside",
    "shown_name",
    "tables_of",
]

HELD_BYTES = 64 << 20  # larger remote files are downloaded to a temporary file
_PAPERS = ("readme", "license", "licence", "copying", "copyright", "attribution", "changelog")
_HTTP = ("http://", "https://")

Files = list[Path] | list[RemoteFile]


class FileStore(AudioStore):
    """Audio files on this machine or behind URLs, by position in a list."""

    def __init__(self, files: Files) -> None:
        self.files = files
        self.is_local = all(isinstance(file, Path) for file in files)

    def __getstate__(self) -> dict[str, Any]:  # a worker may have another working folder
        files = [file.absolute() if isinstance(file, Path) else file for file in self.files]
        return {**vars(self), "files": files}

    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        file = self.files[key]
        if isinstance(file, Path):
            return file, display_name(file)
        return read_audio_file(file), str(file)

    @contextmanager
    def borrow(self, key: int) -> Iterator[tuple[Path | bytes, str]]:
        file = self.files[key]
        if isinstance(file, Path) or (file.size is not None and file.size <= HELD_BYTES):
            yield self.fetch(key)
            return
        with tempfile.TemporaryDirectory(prefix="tokgen-") as folder:
            path = Path(folder, f"audio{posixpath.splitext(file.name)[1]}")
            with as_audio_error(file):
                file.download(path)
            yield path, str(file)

    def stamp(self, key: int) -> str | None:
        file = self.files[key]
        return None if isinstance(file, Path) else file.stamp


@dataclass(frozen=True)
class Found:
    """Files of a corpus.

    Attributes:
        name: of the corpus.
        files: in a stable order.
        left_out: what cannot be read, or leads out of the folder.
    """

    name: str
    files: Files
    left_out: list[Rejection] = field(default_factory=list)

    def note(self) -> str:
        """Return the end of an error message that counts what was left out; "" for nothing."""
        if not self.left_out:
            return ""
        return f" ({len(self.left_out)} left out, such as {self.left_out[0]})"


def find_files(source: Path | str, *, follow_links: bool = False) -> Found | None:
    """Find the files of a corpus, without hidden ones.

    Args:
        source: path, or URL as a string, of a folder or of a `.parquet` file.
        follow_links: follow links that lead out of the folder.
    Returns:
        the files, or None if a path does not exist.
    Raises:
        FileNotFoundError: there are no files behind a URL.
        ValueError: the source is a file of another format, or its protocol is unknown.
        ModuleNotFoundError: the protocol's driver is not installed.
        StoreError: the store does not answer.
    """
    if isinstance(source, str):
        shown = without_query(source).rstrip("/")
        name = posixpath.basename(shown)
        if shown.lower().endswith(".parquet"):
            filesystem, path = find_filesystem(source)
            info = patiently(lambda: filesystem.info(path), shown)
            return Found(stem(name), [RemoteFile.of(source, info)])
        if source.startswith(_HTTP):
            raise ValueError(f"{shown}: over HTTP, only one .parquet file can be read; name it")
        files = _find_remote(shown)
        if not files:
            raise FileNotFoundError(f"{shown}: no files there")
        return Found(name, files)
    if source.is_dir():
        left_out: list[Rejection] = []
        local = walk(source, left_out, follow_links=follow_links)
        return Found(display_name(source.resolve().name), local, left_out)
    if not os.path.lexists(source):
        return None
    if reason := why_unreadable(source):
        raise ValueError(f"{source}: {reason}")
    if source.suffix.lower() != ".parquet":
        raise ValueError(f"{source} is a file but not .parquet; give a folder of audio instead")
    return Found(display_name(source.stem), [source])


def _find_remote(url: str) -> list[RemoteFile]:
    filesystem, path = find_filesystem(url)
    filesystem.invalidate_cache()
    found = patiently(lambda: filesystem.find(path, detail=True), url)
    root = path.rstrip("/") + "/"
    return [
        RemoteFile.of(f"{url}/{full[len(root) :]}", info)
        for full, info in sorted(found.items())
        if full.startswith(root) and "/." not in full[len(root) - 1 :]
    ]


def tables_of(files: Files) -> Files:
    """Return the Parquet files among files, sorted by path."""
    found: Any = [file for file in files if file.name.lower().endswith(".parquet")]
    return sorted(found, key=lambda file: file.url if isinstance(file, RemoteFile) else file)


def list_files(
    source: Path | str, found: Found, catalogue: Catalogue, *, follow_links: bool = False
) -> AudioStore:
    """List a folder of audio, a Parquet file, a folder of them, or a saved dataset.

    Args:
        source, found: argument and result of `find_files`.
        catalogue: receives the entries.
        follow_links: follow paths in metadata, audio cells and saved datasets out of the folder.
    Raises:
        ValueError: no file is of such a kind, or a table has no audio column.
    """
    root: Path | str
    files = found.files
    if isinstance(source, Path):
        root = source if source.is_dir() else source.parent
    elif source.startswith(_HTTP):  # servers differ in what a path means, so none is followed
        return list_parquet(files, None, catalogue)
    else:
        root = source.rstrip("/")
        root = root.rpartition("/")[0] if root.lower().endswith(".parquet") else root
    if any(file.name in SAVED and path_inside(file, root) in SAVED for file in files):
        return list_saved(root, found.name, catalogue, follow_links=follow_links)
    groups: tuple[Any, Any] = [], []
    for file in files:
        groups[posixpath.splitext(file.name)[1].lower() in AUDIO_SUFFIXES].append(file)
    others, audio = groups
    if audio:
        list_audio(audio, others, root, catalogue, follow_links=follow_links)
        return FileStore(audio)
    if tables := tables_of(others):
        return list_parquet(tables, root, catalogue, follow_links=follow_links)
    raise ValueError(
        f"{root} holds no audio files, no .parquet files and no saved dataset{found.note()}"
    )


def list_audio(
    audio: Files,
    others: Files,
    root: Path | str,
    catalogue: Catalogue,
    *,
    follow_links: bool = False,
) -> None:
    """List audio files. An entry's key is the file's position.

    metadata.csv and metadata.jsonl add texts, speakers, splits, durations and languages. An id is
    the path inside the folder, unless metadata has an id. It has no suffix, except if files differ
    only in their suffixes. If the top folder is named like a split ("train/", "dev/" ...), it is
    the split. A file is reported if it is not audio, metadata, a document (README, LICENSE ...) or
    named like an audio file.

    Args:
        audio: files with the suffix of an audio format. Local ones are opened for their duration.
        others: all other files.
        root: path or URL of the folder.
        catalogue: receives the entries.
        follow_links: files outside the folder that metadata names are added to `audio`.
    """
    names = [path_inside(file, root) for file in audio]
    rest = [(path_inside(file, root), file) for file in others]
    full = str(root.resolve()) if isinstance(root, Path) else root

    def add_outside(name: str) -> int | None:
        """Add a file outside the folder; return its position, or None if there is none."""
        path = Path(os.path.normpath(f"{full}/{name}"))
        if why_unreadable(path) is not None:
            return None
        audio.append(path)  # type: ignore[arg-type]
        names.append(name)
        return len(names) - 1

    described = read_metadata(
        {name: partial(open_text, file) for name, file in rest if is_metadata(name)},
        names,
        full,
        catalogue.reject,
        add_outside if follow_links and isinstance(root, Path) else None,
    )
    stems = {stem(name) for name in names}
    for name, file in rest:
        bare, suffix = os.path.splitext(posixpath.basename(name))
        companion = stem(name) in stems
        if not (companion or is_metadata(name) or bare.lower().startswith(_PAPERS)):
            catalogue.reject(shown_name(file), f"not audio by its name ({suffix or 'no suffix'})")
    bar = progress_bar(f"listing {posixpath.basename(full)}", names, unit="file", delay=2)
    ids = _unique_ids([re.sub(r"^(\.\./)+", "", name) for name in names])
    for key, name in enumerate(bar):
        file = audio[key]
        top = name.split("/")[0] if "/" in name else ""
        about = described.get(key, {})
        split = SPLIT_NAMES.get(top.lower())
        if split is None and "id" not in about:
            split = assign_split(stem(name))  # versions of a recording share it
        fields = {"split": split} | about
        if isinstance(file, Path):
            fields["seconds"] = read_duration(file)
        catalogue.add(key, about.get("id") or ids[key], shown_name(file), fields)


def _unique_ids(names: Sequence[str]) -> list[str]:
    """Return paths without suffix, or with it if two would be the same."""
    ids = [stem(name) for name in names]
    while True:
        count = Counter(ids)
        clashing = [i for i, id in enumerate(ids) if count[id] > 1 and id != names[i]]
        if not clashing:
            return ids
        for i in clashing:
            ids[i] = names[i]


def path_inside(file: Path | RemoteFile, root: Path | str) -> str:
    """Return the path inside a folder, with slashes, in composed Unicode (NFC)."""
    if isinstance(file, RemoteFile):
        name = file.url[len(str(root)) + 1 :]
    else:
        name = display_name(file.relative_to(root)).replace(os.sep, "/")
    return unicodedata.normalize("NFC", name)


def shown_name(file: Path | RemoteFile) -> str:
    """Return a file's path or URL for messages."""
    return display_name(file) if isinstance(file, Path) else str(file)


def open_text(file: Path | RemoteFile) -> TextIO:
    """Open a UTF-8 text; bytes that are not UTF-8 become lone surrogates."""
    data = file.open("rb") if isinstance(file, Path) else io.BytesIO(file.read())
    return io.TextIOWrapper(data, encoding="utf-8-sig", errors="surrogateescape", newline="")
