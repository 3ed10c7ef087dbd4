"""Corpora that are read without listing: streaming Hugging Face datasets and Parquet files.

    corpus = open_corpus("owner/name", streaming=True)
    corpus = stream_corpus(load_dataset(..., streaming=True), "my corpus")
    for unit in corpus.units():
        for entry in corpus.read_unit(unit):
            corpus.load(entry, 16000)

Nothing is downloaded in advance, and no list of entries is held in memory. A unit is one shard
of the stream, usually a file.
"""

from __future__ import annotations

import glob
import hashlib
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tokgen.audio.files import AudioError
from tokgen.corpus.entries import Catalogue, Entry, Rejection
from tokgen.corpus.metadata import COLUMNS
from tokgen.corpus.parquet import split_of
from tokgen.corpus.reading import LONGEST_SECONDS, Readable, Unit, within
from tokgen.corpus.remote import RemoteFile, without_query
from tokgen.corpus.settings import parse_where
from tokgen.corpus.splits import SPLIT_NAMES
from tokgen.corpus.tables import (
    audio_column,
    audio_of,
    by_split,
    cell_of,
    list_batches,
    wanted_columns,
)

if TYPE_CHECKING:
    from datasets import IterableDataset

__all__ = [
    "READ_ROWS",
    "StreamCorpus",
    "StreamPart",
    "StreamedEntry",
    "stream_corpus",
    "stream_parquet",
    "stream_part",
]

READ_ROWS = 16  # rows that are held at once, with their audio


@dataclass(frozen=True)
class StreamedEntry(Entry):
    """An entry that holds its encoded audio, because a stream cannot go back."""

    audio: Any = field(default=None, repr=False, compare=False)  # {bytes, path} or bytes
    problem: str | None = None  # reason for `load` to refuse the entry


@dataclass(frozen=True)
class StreamPart:
    """One split of a stream; see `stream_part`."""

    split: str
    data: IterableDataset
    column: str  # holds the audio
    columns: list[str]  # to read, including `column`
    shards: list[str]  # name of each shard
    identity: Any


@dataclass(repr=False, eq=False)
class StreamCorpus(Readable):
    """Utterances of a streaming dataset, made by `open_corpus` or `stream_corpus`.

    A row that listing would reject, such as a duplicate id, becomes an entry that `load` refuses.
    An id is the dataset's own, or the path of the audio, or the shard and row. Ids must be unique
    across shards. Tokenizing notices duplicates at the end, with a warning.

    Attributes:
        parts: splits that are read.
        require_text: refuse utterances without a transcript.
        split, min_seconds, max_seconds, where: read only these utterances; see `select`.
        language: of utterances whose language the stream does not state.
        rejections: files that were left out; rows are not listed.
    """

    name: str
    parts: list[StreamPart]
    require_text: bool = False
    split: str | None = None
    min_seconds: float | None = None
    max_seconds: float | None = None
    where: str | None = None
    language: str | None = None
    longest_seconds: float = LONGEST_SECONDS
    rejections: list[Rejection] = field(default_factory=list)

    def __repr__(self) -> str:
        shards = ", ".join(f"{len(part.shards)} shards of {part.split!r}" for part in self.parts)
        return f"StreamCorpus({self.name!r}: {shards or 'empty'})"

    @property
    def n_entries(self) -> None:
        return None

    @property
    def is_local(self) -> bool:
        return False

    def units(self, rows: int = 64, seconds: float = 600.0) -> list[Unit]:
        """Return one unit per shard. `rows` and `seconds` are ignored, because both are unknown."""
        n_shards = sum(len(part.shards) for part in self.parts)
        return [Unit(i, i, i + 1) for i in range(n_shards)]

    def read_unit(self, unit: Unit) -> Iterator[Entry]:
        """Yield entries with their audio. Do not keep them, because audio fills the memory.

        A damaged shard ends with an entry that `load` refuses.

        Raises:
            OSError: the connection failed, and so did the retries of `datasets`.
        """
        shards = [(part, i) for part in self.parts for i in range(len(part.shards))]
        for part, i in shards[unit.start : unit.stop]:
            for entry in self._read(part, i):
                if self._wanted(entry):
                    yield entry

    def _read(self, part: StreamPart, i: int) -> Iterator[StreamedEntry]:
        data, n = part.data, len(part.shards)
        if n > 1:
            data = data.shard(num_shards=n, index=i)
        tables = data.select_columns(part.columns).with_format("arrow").iter(batch_size=READ_ROWS)
        catalogue = Catalogue(require_text=self.require_text, language=self.language)
        first, label = 0, part.shards[i]
        while True:
            try:
                table: pa.Table | None = next(tables, None)
                if table is None:
                    return
                list_batches([table], part.column, catalogue, 0, label, part.split or None, first)
            except (pa.ArrowException, ValueError) as error:
                yield _refused(label, f"the shard is damaged after row {first} ({error})")
                return
            for entry in catalogue.entries:
                cell = cell_of(table.column(part.column)[entry.key - first])
                yield StreamedEntry(**vars(entry), audio=cell)
            for rejection in catalogue.rejections:
                yield _refused(rejection.source, rejection.reason)
            catalogue.entries.clear()
            catalogue.rejections.clear()
            first += table.num_rows

    def _wanted(self, entry: StreamedEntry) -> bool:
        if entry.problem is not None:
            return True
        if self.split is not None and entry.split != self.split:
            return False
        if self.where is not None and not entry.fits(*parse_where(self.where)):
            return False
        if self.min_seconds is None and self.max_seconds is None:
            return True
        return within(self._measure(entry), self.min_seconds, self.max_seconds)

    @contextmanager
    def _borrow(self, entry: Entry) -> Iterator[tuple[Path | bytes, str]]:
        if not isinstance(entry, StreamedEntry):
            raise TypeError(f"{entry.source} is not an entry of a stream: read it with read_unit")
        if entry.problem is not None:
            raise AudioError(entry.source, entry.problem)
        cell = entry.audio
        if isinstance(cell, Mapping) and cell.get("bytes") is None and cell.get("path"):
            raise AudioError(
                entry.source,
                f"the stream holds a path ({cell['path']!r}) instead of audio; it is not "
                "followed: open the folder or its URL without streaming",
            )
        yield audio_of(cell, entry.source, [])

    def select(
        self,
        split: str | None = None,
        min_seconds: float | None = None,
        max_seconds: float | None = None,
        where: str | None = None,
    ) -> StreamCorpus:
        """Select a part of the stream, as `Corpus.select` does, but a split by its own name only.

        Unknown durations are measured from the audio's header while reading.

        Raises:
            ValueError: there is no such split.
        """
        parts = self.parts
        by_row = any(name in part.columns for part in parts for name in COLUMNS["split"])
        if split is not None and not by_row:
            named = {p.split: SPLIT_NAMES.get(p.split.lower(), p.split) for p in parts if p.split}
            if len(named) == len(parts) and split not in named.values():
                known = ", ".join(repr(name) for name in named.values())
                raise ValueError(f"{self.name} has no split {split!r}; it has {known}")
            parts = [part for part in parts if named.get(part.split, split) == split]
        return replace(
            self,
            parts=parts,
            split=self.split if split is None else split,
            min_seconds=self.min_seconds if min_seconds is None else min_seconds,
            max_seconds=self.max_seconds if max_seconds is None else max_seconds,
            where=self.where if where is None else where,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over name, selection, splits, columns, shards and each part's identity.

        The identity of a hub dataset is its files' URLs, which hold the commit. For local Parquet
        files it is the size and a hash of the end, for remote ones the store's checksum, and for
        `stream_corpus` its `version`. No audio is read.
        """
        chosen = [self.require_text, self.split, self.min_seconds, self.max_seconds]
        chosen += [] if self.where is None else [self.where]
        parts = [[p.split, _told(p.columns), p.shards, p.identity] for p in self.parts]
        return hashlib.sha256(json.dumps([self.name, chosen, parts]).encode()).hexdigest()


def stream_corpus(
    dataset: IterableDataset | Mapping[Any, IterableDataset],
    name: str,
    *,
    version: str = "",
    require_text: bool = False,
) -> StreamCorpus:
    """Make a corpus from your own streaming dataset. `datasets` does not decode its audio.

    Args:
        dataset: result of `load_dataset(..., streaming=True)`, with or without a split.
        version: of the content, such as a commit. It enters the fingerprint.
        require_text: refuse utterances without a transcript.
    Raises:
        ValueError: there is no audio column.
    """
    parts = [stream_part(split, data, version) for split, data in by_split(dataset).items()]
    return StreamCorpus(name, parts, require_text=require_text)


def stream_parquet(
    files: Sequence[Path | RemoteFile], name: str, *, require_text: bool = False
) -> StreamCorpus:
    """Open Parquet files without listing their rows. Each file is a unit.

    Splits are found as in `list_parquet`.

    Raises:
        ValueError: there is no audio column.
    """
    from datasets import load_dataset

    groups: dict[str, list[Path | RemoteFile]] = {}
    for file in files:
        groups.setdefault(split_of(file), []).append(file)
    parts = []
    for split, group in groups.items():
        urls = [f.url if isinstance(f, RemoteFile) else str(f.absolute()) for f in group]
        urls = [url if url.startswith("http") else glob.escape(url) for url in urls]
        data = load_dataset(
            "parquet", data_files=urls, split="train", streaming=True, batch_size=READ_ROWS
        )
        parts.append(
            stream_part(split, data, [_identity(f) for f in group], [f.name for f in group])
        )
    return StreamCorpus(name, parts, require_text=require_text)


def stream_part(
    split: str, data: IterableDataset, identity: Any, files: Sequence[str] = ()
) -> StreamPart:
    """Describe one split of a stream.

    Args:
        split: name, or "" if the stream has no splits.
        data: the stream.
        identity: JSON-ready value that changes with the content.
        files: the stream's files. If there is one per shard, they name the shards.
    Raises:
        ValueError: there is no audio column.
    """
    if data.features is not None:
        schema = data.features.arrow_schema
    else:
        schema = next(iter(data.with_format("arrow").iter(batch_size=1))).schema
    column = audio_column(schema, split or "the stream")
    columns = [name.split(".")[0] for name in wanted_columns(schema, column)]
    shards = [posixpath.basename(without_query(str(name))) for name in files]
    n = data.num_shards
    if len(set(shards)) != n:
        shards = [f"{split or 'shard'}-{i:05d}-of-{n:05d}" for i in range(n)]
    return StreamPart(
        split, data, column, list(dict.fromkeys([column, *columns])), shards, identity
    )


def _identity(file: Path | RemoteFile) -> str:
    if isinstance(file, RemoteFile):
        return file.stamp or f"{file.size} bytes"
    size = file.stat().st_size
    with file.open("rb") as opened:
        opened.seek(max(0, size - (64 << 10)))  # the end describes all columns
        return f"{size} bytes, {hashlib.sha256(opened.read()).hexdigest()}"


def _told(columns: Sequence[str]) -> list[str]:
    """Return the columns that enter the fingerprint: codes do not depend on the language."""
    return [name for name in columns if name not in COLUMNS["language"]]


def _refused(source: str, reason: str) -> StreamedEntry:
    return StreamedEntry(source, source, None, None, "", None, problem=reason)
