"""Corpora behind a URL: folders of audio, Parquet files and saved datasets on object storage.

Listing asks for names, sizes and checksums, reads metadata files and the small columns of tables
(by ranges), and no audio. An audio file is fetched when it is decoded; a recording of more than a
minute whose duration nobody tells is begun, and then read once for the codes and once for the
conditioning.
"""

from __future__ import annotations

import io
import posixpath
import tempfile
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa

from tokgen.audio.files import AUDIO_SUFFIXES
from tokgen.corpus.entries import AudioStore, Catalogue
from tokgen.corpus.folders import FoundFile, list_files
from tokgen.corpus.remote import RemoteFile, of_one_file, patiently, read_audio_file, without_query
from tokgen.corpus.tables import by_split, list_dataset, list_parquet
from tokgen.storage import find_filesystem

HELD_BYTES = 64 << 20  # a larger file goes through a temporary file
_HTTP = ("http://", "https://")


class UrlStore(AudioStore):
    """Audio files behind URLs, by position in a list."""

    is_local = False

    def __init__(self, files: Sequence[RemoteFile]) -> None:
        self.files = files

    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        file = self.files[key]
        return read_audio_file(file), str(file)

    @contextmanager
    def borrow(self, key: int) -> Iterator[tuple[Path | bytes, str]]:
        file = self.files[key]
        if file.size is not None and file.size <= HELD_BYTES:
            yield self.fetch(key)
            return
        with tempfile.TemporaryDirectory(prefix="tokgen-") as folder:
            path = Path(folder, f"audio{posixpath.splitext(file.name)[1]}")
            with of_one_file(file):
                file.download(path)
            yield path, str(file)

    def stamp(self, key: int) -> str | None:
        return self.files[key].stamp


def open_url(url: str, catalogue: Catalogue) -> tuple[str, AudioStore]:
    """List what a URL holds.

    Args:
        url: of a folder of audio, a `.parquet` file, a folder of them, or a saved dataset.
        catalogue: gets the utterances.
    Returns:
        the corpus' name, and what fetches its audio.
    Raises:
        FileNotFoundError: nothing is there.
        ValueError: no audio there, or no such protocol.
        ModuleNotFoundError: the protocol's driver is not installed.
        StoreError: the store does not answer.
    """
    shown = without_query(url).rstrip("/")
    name = posixpath.basename(shown)
    if shown.lower().endswith(".parquet"):
        over_http = url.startswith(_HTTP)  # servers differ in what a path means to them
        folder = None if over_http else shown.rpartition("/")[0]
        return posixpath.splitext(name)[0], list_parquet([find_file(url)], folder, catalogue)
    if url.startswith(_HTTP):
        raise ValueError(f"{shown}: over HTTP, only one .parquet file can be read; name it")
    files = find_files(url)
    if not files:
        raise FileNotFoundError(f"{shown}: no files there")
    paths = [file.url[len(shown) + 1 :] for file in files]
    if {"dataset_dict.json", "state.json"} & set(paths):
        return name, _saved(url, name, catalogue)
    audio = [file for file in files if posixpath.splitext(file.name)[1].lower() in AUDIO_SUFFIXES]
    if audio:
        others = [file for file in files if file not in set(audio)]
        list_files(
            catalogue,
            [_found(file, shown) for file in audio],
            [_found(file, shown) for file in others],
            root=shown,
        )
        return name, UrlStore(audio)
    tables = [file for file in files if file.name.lower().endswith(".parquet")]
    if tables:
        return name, list_parquet(tables, shown, catalogue)
    raise ValueError(f"{shown} holds no audio files, no .parquet files and no saved dataset")


def find_tables(url: str) -> tuple[str, list[RemoteFile]]:
    """Name and Parquet files of a URL, that of a file or of a folder; errors as of `open_url`."""
    shown = without_query(url).rstrip("/")
    name = posixpath.basename(shown)
    if shown.lower().endswith(".parquet"):
        return posixpath.splitext(name)[0], [find_file(url)]
    if url.startswith(_HTTP):
        raise ValueError(f"{shown}: over HTTP, only one .parquet file can be read; name it")
    return name, [file for file in find_files(url) if file.name.lower().endswith(".parquet")]


def find_file(url: str) -> RemoteFile:
    """
    Raises:
        FileNotFoundError: no such file.
    """
    filesystem, path = find_filesystem(url)
    return RemoteFile.of(url, patiently(lambda: filesystem.info(path), without_query(url)))


def find_files(url: str) -> list[RemoteFile]:
    """All files below a folder, by name; hidden ones are left out."""
    filesystem, path = find_filesystem(url)
    filesystem.invalidate_cache()
    found = patiently(lambda: filesystem.find(path, detail=True), url)
    root = path.rstrip("/") + "/"
    inside = sorted(
        (full[len(root) :], info) for full, info in found.items() if full.startswith(root)
    )
    url = url.rstrip("/")
    return [
        RemoteFile.of(f"{url}/{name}", info)
        for name, info in inside
        if not any(part.startswith(".") for part in name.split("/"))
    ]


def _found(file: RemoteFile, root: str) -> FoundFile:
    inside = unicodedata.normalize("NFC", file.url[len(root) + 1 :])
    return FoundFile(inside, str(file), partial(_open_text, file))


def _open_text(file: RemoteFile) -> TextIO:
    return io.TextIOWrapper(io.BytesIO(file.read()), encoding="utf-8-sig", newline="")


def _saved(url: str, name: str, catalogue: Catalogue) -> AudioStore:
    """A dataset that `save_to_disk` wrote: `datasets` copies it to this machine first."""
    import datasets

    try:
        saved: Any = datasets.load_from_disk(url)
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{url} is a saved dataset that cannot be opened: {error}") from error
    return list_dataset(by_split(saved), name, [], catalogue)
