"""A corpus: folders of audio, Parquet files or datasets as one stream of utterances.

    corpus = open_corpus("recipes/data/allison", split="train")
    rejected: list[Rejection] = []
    for utterance in corpus.utterances(16000, rejected=rejected):
        utterance.waveform  # [1, N]

Opening lists light entries; audio is decoded one utterance at a time. What cannot be used is
reported by name and reason and never stops the stream.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Literal, overload

import pyarrow as pa
from tqdm import tqdm

from tokgen.audio.files import AudioError, display_name, read_duration
from tokgen.corpus.entries import AudioStore, Catalogue, Entry, Rejection, assign_split
from tokgen.corpus.folders import holds_audio, list_folder
from tokgen.corpus.hub import list_hub, stream_hub
from tokgen.corpus.reading import (
    LONGEST_SECONDS,
    SILENCE_PEAK,
    Readable,
    Unit,
    Utterance,
    check_loud,
    cut_units,
    within,
)
from tokgen.corpus.remote import RemoteFile
from tokgen.corpus.streams import StreamCorpus, stream_corpus, stream_parquet
from tokgen.corpus.tables import by_split, list_dataset, list_parquet
from tokgen.corpus.urls import find_tables, open_url
from tokgen.storage import is_url, local_path

__all__ = [
    "SILENCE_PEAK",
    "Corpus",
    "Entry",
    "Readable",
    "Rejection",
    "StreamCorpus",
    "Unit",
    "Utterance",
    "assign_split",
    "check_loud",
    "open_corpus",
    "stream_corpus",
]

_EDGE = 64 << 10  # bytes of a file's start and end that enter the fingerprint


class Corpus(Readable):
    """Utterances in a stable order; `open_corpus` makes one.

    Attributes:
        name: the folder's, file's or dataset's.
        entries: unique by id.
        rejections: what listing left out. Selections keep them all: count them once.
        longest_seconds: `load` refuses longer audio, so that one file cannot fill the memory.
    """

    def __init__(
        self,
        name: str,
        entries: Sequence[Entry],
        rejections: Sequence[Rejection],
        store: AudioStore,
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        self.name, self.entries, self.rejections = name, list(entries), list(rejections)
        self.longest_seconds = longest_seconds
        self._store = store

    def __len__(self) -> int:
        return len(self.entries)

    @property
    def n_entries(self) -> int:
        return len(self.entries)

    @property
    def is_local(self) -> bool:
        return self._store.is_local

    def __repr__(self) -> str:
        splits = ", ".join(f"{n} {split}" for split, n in self.splits.items())
        return f"Corpus({self.name!r}: {splits or 'empty'}; {len(self.rejections)} rejected)"

    @property
    def splits(self) -> dict[str, int]:
        """Entries per split."""
        return dict(Counter(entry.split for entry in self.entries))

    def units(self, rows: int = 64, seconds: float = 600.0) -> list[Unit]:
        """Units of consecutive entries.

        Args:
            rows: in a unit at most.
            seconds: a unit ends with the entry that brings its known duration here.
        """
        return cut_units(self.entries, rows, seconds)

    def read_unit(self, unit: Unit) -> Iterator[Entry]:
        yield from self.entries[unit.start : unit.stop]

    def _borrow(self, entry: Entry) -> AbstractContextManager[tuple[Path | bytes, str]]:
        return self._store.borrow(entry.key)

    def select(
        self,
        split: str | None = None,
        min_seconds: float | None = None,
        max_seconds: float | None = None,
        n: int | None = None,
        ids: Sequence[str] | None = None,
    ) -> Corpus:
        """Part of the corpus, in the same order.

        Entries whose duration nobody tells are measured by their header, which behind a URL
        takes a pass over all files: better have a duration column there. Those that cannot be
        measured stay, so that loading reports them.

        Args:
            split: keep one split.
            min_seconds: keep entries at least as long.
            max_seconds: keep entries at most as long.
            n: keep the first n of what is left.
            ids: keep entries of these ids.
        Raises:
            ValueError: no such split, n under 1, or an id that is not there.
        """
        if n is not None and n < 1:
            raise ValueError(f"n = {n}: keep at least 1 entry, or None for all")
        entries = self.entries
        if split is not None and entries:
            if split not in self.splits:
                known = ", ".join(repr(name) for name in self.splits)
                raise ValueError(f"{self.name} has no split {split!r}; it has {known}")
            entries = [entry for entry in entries if entry.split == split]
        if ids is not None:
            wanted = set(ids)
            absent = sorted(wanted - {entry.id for entry in entries})
            if absent:
                raise ValueError(f"{self.name} has no {absent[:3]}, {len(absent)} ids in all")
            entries = [entry for entry in entries if entry.id in wanted]
        if min_seconds is not None or max_seconds is not None:
            bar = tqdm(entries, desc=f"durations of {self.name}", unit="file", delay=2)
            entries = [self._measured(entry) for entry in bar]
            entries = [
                entry
                for entry in entries
                if entry.seconds is None or within(entry.seconds, min_seconds, max_seconds)
            ]
        return Corpus(self.name, entries[:n], self.rejections, self._store, self.longest_seconds)

    def _measured(self, entry: Entry) -> Entry:
        if entry.seconds is not None:
            return entry
        try:
            with self._borrow(entry) as (data, name):
                return replace(entry, seconds=read_duration(data, name=name))
        except AudioError:
            return entry

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over the ids, texts, speakers, splits and audio, in order.

        Audio in tables counts byte for byte; a file counts by its size and its first and
        last 64 kB, so that a large folder is quick to check. Behind a URL, a file counts by its
        size and the checksum that the store keeps of it (an ETag, an MD5 ...), or else the time
        of its last change, and a row of a table by its file and number: nothing is downloaded.
        Where a store tells none of these, bytes count.
        """
        total = hashlib.sha256()
        for entry in self.entries:
            about = [entry.id, entry.text, entry.speaker, entry.split, self._digest(entry)]
            total.update(json.dumps(about).encode() + b"\n")
        return total.hexdigest()

    def _digest(self, entry: Entry) -> str:
        try:
            if (stamp := self._store.stamp(entry.key)) is not None:
                return stamp
            data, _ = self._store.fetch(entry.key)
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


@overload
def open_corpus(
    where: str | Path,
    *,
    streaming: Literal[False] = False,
    split: str | None = None,
    require_text: bool = False,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
) -> Corpus: ...
@overload
def open_corpus(
    where: str | Path,
    *,
    streaming: bool,
    split: str | None = None,
    require_text: bool = False,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
) -> Corpus | StreamCorpus: ...
def open_corpus(
    where: str | Path,
    *,
    streaming: bool = False,
    split: str | None = None,
    require_text: bool = False,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
) -> Corpus | StreamCorpus:
    """List a corpus, or open it to be read as it comes.

    Args:
        where: a folder of audio (with `metadata.csv` or `metadata.jsonl`, or LJSpeech's
            `id|text|normalized`, if there is one), a `.parquet` file or a folder of them with
            a column `audio {bytes, path}`, a dataset that `save_to_disk` wrote, or the name of
            a hub dataset ("owner/name" or "owner/name:config"). All but the last may be a URL
            that fsspec knows (s3://, gs://, hf://, memory:// ...; over https:// a `.parquet`).
        streaming: read a hub dataset or Parquet without download and without listing.
        split: keep one split. Utterances without a split get one from `assign_split`.
        require_text: reject utterances without a transcript.
        min_seconds: leave out shorter ones.
        max_seconds: leave out longer ones.
    Raises:
        FileNotFoundError: neither here nor a hub dataset in reach.
        ValueError: holds no audio at all, no audio column, or no such split; no such protocol.
        ModuleNotFoundError: the protocol's driver is not installed.
        StoreError: an OSError, for a store that does not answer.
    """
    where = local_path(where) or where
    if streaming:
        stream = _open_stream(where, require_text)
        return stream.select(split, min_seconds, max_seconds)
    path = Path(where)
    catalogue = Catalogue(require_text=require_text)
    if is_url(where):
        name, store = open_url(str(where), catalogue)
    elif path.is_dir():
        name = display_name(path.resolve().name)
        store = _open_folder(path, name, catalogue)
    elif path.is_file():
        name, store = (
            display_name(path.stem),
            list_parquet([_parquet(path)], path.parent, catalogue),
        )
    else:
        name = str(where)
        store = list_hub(name, catalogue)
    if not catalogue.entries and not catalogue.rejections:
        raise ValueError(f"{where} holds no utterances")
    corpus = Corpus(name, catalogue.entries, catalogue.rejections, store)
    return corpus.select(split, min_seconds, max_seconds)


def _open_stream(where: str | Path, require_text: bool) -> StreamCorpus:
    path = Path(where)
    files: list[Path] | list[RemoteFile]
    if is_url(where):
        name, files = find_tables(str(where))
    elif path.is_dir():
        name, files = display_name(path.resolve().name), _tables(path)
    elif path.is_file():
        name, files = display_name(path.stem), [_parquet(path)]
    else:
        return stream_hub(str(where), require_text=require_text)
    if not files:
        raise ValueError(f"{where} holds no .parquet files: open it without streaming")
    return stream_parquet(files, name, require_text=require_text)


def _parquet(path: Path) -> Path:
    if path.suffix.lower() != ".parquet":
        raise ValueError(f"{path} is a file but not .parquet; give a folder of audio instead")
    return path


def _tables(folder: Path) -> list[Path]:
    """Parquet files at any depth; hidden ones are left out."""
    found = folder.rglob("*.parquet")
    return sorted(p for p in found if not set(".") & {q[0] for q in p.relative_to(folder).parts})


def _open_folder(path: Path, name: str, catalogue: Catalogue) -> AudioStore:
    if (path / "dataset_dict.json").is_file() or (path / "state.json").is_file():
        import datasets

        try:
            saved = datasets.load_from_disk(str(path))
        except (OSError, ValueError, pa.ArrowException) as error:
            raise ValueError(f"{path} is a saved dataset that cannot be opened: {error}") from error
        return list_dataset(by_split(saved), name, [path], catalogue)
    if not holds_audio(path):
        tables = _tables(path)
        if tables:
            return list_parquet(tables, path, catalogue)
        raise ValueError(f"{path} holds no audio files, no .parquet files and no saved dataset")
    return list_folder(path, catalogue)
