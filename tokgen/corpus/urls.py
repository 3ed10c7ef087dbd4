"""Corpora behind a URL: folders of audio, Parquet files and saved datasets on object storage.

Listing asks for names, sizes and checksums, and reads metadata files and the small columns of
tables. It reads no audio. An audio file is fetched when it is decoded. Tokenizing fetches a
recording of more than a minute once for the codes and once for the conditioning, and once more
before if its duration is unknown.
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
from typing import TextIO

from tokgen.audio.files import AUDIO_SUFFIXES
from tokgen.corpus.entries import AudioStore, Catalogue
from tokgen.corpus.folders import FoundFile, list_files
from tokgen.corpus.parquet import list_parquet
from tokgen.corpus.remote import RemoteFile, as_audio_error, read_audio_file, without_query
from tokgen.corpus.tables import list_saved
from tokgen.storage import find_filesystem, patiently

HELD_BYTES = 64 << 20  # larger files are downloaded to a temporary file
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
            with as_audio_error(file):
                file.download(path)
            yield path, str(file)

    def stamp(self, key: int) -> str | None:
        return self.files[key].stamp


def open_url(url: str, catalogue: Catalogue) -> tuple[str, AudioStore]:
    """List a corpus behind a URL.

    Args:
        url: of a folder of audio, a `.parquet` file, a folder of them, or a saved dataset.
        catalogue: receives the entries.
    Returns:
        the corpus' name, and the store that fetches its audio.
    Raises:
        FileNotFoundError: there are no files.
        ValueError: the files hold no audio, or the protocol is unknown.
        ModuleNotFoundError: the protocol's driver is not installed.
        StoreError: the store does not answer.
    """
    shown = without_query(url).rstrip("/")
    if url.startswith(_HTTP) or shown.lower().endswith(".parquet"):
        name, tables = find_tables(url)
        # HTTP servers differ in what a path means to them, so none is followed there.
        folder = None if url.startswith(_HTTP) else shown.rpartition("/")[0]
        return name, list_parquet(tables, folder, catalogue)
    name = posixpath.basename(shown)
    files = find_files(url)
    if not files:
        raise FileNotFoundError(f"{shown}: no files there")
    if {"dataset_dict.json", "state.json"} & {file.url[len(shown) + 1 :] for file in files}:
        return name, list_saved(url, name, catalogue)
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
    """Return the name and the Parquet files of a corpus; raises the errors of `open_url`.

    Args:
        url: of a `.parquet` file or a folder.
    """
    shown = without_query(url).rstrip("/")
    name = posixpath.basename(shown)
    if shown.lower().endswith(".parquet"):
        filesystem, path = find_filesystem(url)
        info = patiently(lambda: filesystem.info(path), shown)
        return posixpath.splitext(name)[0], [RemoteFile.of(url, info)]
    if url.startswith(_HTTP):
        raise ValueError(f"{shown}: over HTTP, only one .parquet file can be read; name it")
    return name, [file for file in find_files(url) if file.name.lower().endswith(".parquet")]


def find_files(url: str) -> list[RemoteFile]:
    """Return all files below a folder, sorted by name, without hidden ones."""
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
