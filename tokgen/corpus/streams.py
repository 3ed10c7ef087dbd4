"""Corpora that are read as they come: Hugging Face streaming datasets, Parquet without listing.

    corpus = open_corpus("owner/name", streaming=True)
    corpus = stream_corpus(load_dataset(..., streaming=True), "my corpus")
    for unit in corpus.units():
        for entry in corpus.read_unit(unit):
            corpus.load(entry, 16000)

Nothing is downloaded ahead and no list of entries is held, however large the corpus. A unit is a
shard of the stream, mostly one file.
"""

from __future__ import annotations

import glob
import hashlib
import json
import posixpath
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from tokgen.audio.files import AudioError, read_duration
from tokgen.corpus.entries import SPLIT_NAMES, Catalogue, Entry, Rejection
from tokgen.corpus.metadata import COLUMNS
from tokgen.corpus.reading import LONGEST_SECONDS, Readable, Unit, within
from tokgen.corpus.remote import RemoteFile, without_query
from tokgen.corpus.tables import (
    audio_column,
    audio_of,
    by_split,
    list_batch,
    split_of,
    wanted_columns,
)

if TYPE_CHECKING:
    from datasets import IterableDataset

READ_ROWS = 16  # with their audio, held at once


@dataclass(frozen=True)
class StreamedEntry(Entry):
    """An entry that holds its audio, encoded, for a stream does not go back.

    Attributes:
        audio: {bytes, path} or bytes.
        problem: why `load` refuses it.
    """

    audio: Any = field(default=None, repr=False, compare=False)
    problem: str | None = None


@dataclass(frozen=True)
class StreamPart:
    """One split of a stream.

    Attributes:
        split: its name, "" where it has none.
        data: the stream.
        column: holds the audio.
        columns: to read, `column` too.
        shards: a name for each.
        identity: what tells this content from another, JSON-ready.
    """

    split: str
    data: IterableDataset
    column: str
    columns: list[str]
    shards: list[str]
    identity: Any


class StreamCorpus(Readable):
    """Utterances of a streaming dataset; `open_corpus` and `stream_corpus` make one.

    Rows that listing would report (a duplicate id, no transcript where one is required) come as
    entries that `load` refuses with the reason. Ids are the dataset's own, or else the paths of
    its audio, or shard and row; they must not repeat in different shards, which no shard knows.

    Attributes:
        name: of the corpus.
        parts: splits that are read.
        rejections: empty, for nothing is listed.
        longest_seconds: `load` refuses longer audio.
    """

    def __init__(
        self,
        name: str,
        parts: Sequence[StreamPart],
        *,
        require_text: bool = False,
        split: str | None = None,
        min_seconds: float | None = None,
        max_seconds: float | None = None,
        longest_seconds: float = LONGEST_SECONDS,
    ) -> None:
        self.name, self.parts, self.longest_seconds = name, list(parts), longest_seconds
        self.rejections: list[Rejection] = []
        self.require_text, self.split = require_text, split
        self.min_seconds, self.max_seconds = min_seconds, max_seconds

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
        """One for each shard; `rows` and `seconds` change nothing, for nobody knows them yet."""
        n_shards = sum(len(part.shards) for part in self.parts)
        return [Unit(i, i, i + 1) for i in range(n_shards)]

    def read_unit(self, unit: Unit) -> Iterator[Entry]:
        """Entries as they come in, each with its audio: let go of them as you go.

        A shard that is damaged ends with an entry that `load` refuses.

        Raises:
            OSError: no connection, after the retries of `datasets`.
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
        catalogue = Catalogue(require_text=self.require_text)
        first, label = 0, part.shards[i]
        while True:
            try:
                table: pa.Table | None = next(tables, None)
                if table is None:
                    return
                list_batch(table, part.column, catalogue, 0, first, label, part.split or None)
            except (pa.ArrowException, ValueError) as error:
                yield _refused(label, f"the shard is damaged after row {first} ({error})")
                return
            for entry in catalogue.entries:
                cell = table.column(part.column)[entry.key - first].as_py()
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
        if self.min_seconds is None and self.max_seconds is None:
            return True
        seconds = entry.seconds
        if seconds is None:
            try:
                with self._borrow(entry) as (data, name):
                    seconds = read_duration(data, name=name)
            except AudioError:
                return True  # loading reports it
        return seconds is None or within(seconds, self.min_seconds, self.max_seconds)

    @contextmanager
    def _borrow(self, entry: Entry) -> Iterator[tuple[Path | bytes, str]]:
        if not isinstance(entry, StreamedEntry):
            raise TypeError(f"{entry.source} is no entry of a stream: read it with read_unit")
        if entry.problem is not None:
            raise AudioError(entry.source, entry.problem)
        cell = entry.audio
        if isinstance(cell, Mapping) and cell.get("bytes") is None and cell.get("path"):
            raise AudioError(
                entry.source,
                f"the stream gives a path ({cell['path']!r}) in place of audio; it is not "
                "followed: open the folder or its URL without streaming",
            )
        yield audio_of(cell, entry.source, [])

    def select(
        self,
        split: str | None = None,
        min_seconds: float | None = None,
        max_seconds: float | None = None,
    ) -> StreamCorpus:
        """Part of the stream; durations that nobody tells are measured by header on reading.

        Raises:
            ValueError: no such split.
        """
        parts = self.parts
        if split is not None and not any(_has_split_column(part) for part in parts):
            named = {part.split: _split_name(part.split) for part in parts if part.split}
            if len(named) == len(parts) and split not in named.values():
                known = ", ".join(repr(name) for name in named.values())
                raise ValueError(f"{self.name} has no split {split!r}; it has {known}")
            parts = [part for part in parts if named.get(part.split, split) == split]
        return StreamCorpus(
            self.name,
            parts,
            require_text=self.require_text,
            split=self.split if split is None else split,
            min_seconds=self.min_seconds if min_seconds is None else min_seconds,
            max_seconds=self.max_seconds if max_seconds is None else max_seconds,
            longest_seconds=self.longest_seconds,
        )

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over name, selection, splits, features, and the names of the shards' files.

        Names on the hub hold the commit. Of Parquet files it holds size and end, or behind a URL
        the store's checksum. A dataset given to `stream_corpus` counts by its `version`: the audio
        of a stream is not read to compare it.
        """
        chosen = [self.require_text, self.split, self.min_seconds, self.max_seconds]
        parts = [[part.split, part.columns, part.shards, part.identity] for part in self.parts]
        return hashlib.sha256(json.dumps([self.name, chosen, parts]).encode()).hexdigest()


def stream_corpus(
    dataset: IterableDataset | Mapping[Any, IterableDataset],
    name: str,
    *,
    version: str = "",
    require_text: bool = False,
) -> StreamCorpus:
    """A corpus of a streaming dataset of yours; `datasets` never decodes its audio.

    Args:
        dataset: what `load_dataset(..., streaming=True)` gives, with a split or without.
        name: of the corpus.
        version: tells one content from another, as a commit does: it enters the fingerprint.
        require_text: refuse utterances without a transcript.
    Raises:
        ValueError: no audio column.
    """
    parts = [stream_part(split, data, version) for split, data in by_split(dataset).items()]
    return StreamCorpus(name, parts, require_text=require_text)


def stream_parquet(
    files: Sequence[Path | RemoteFile], name: str, *, require_text: bool = False
) -> StreamCorpus:
    """Parquet files, each a unit, without listing their rows; splits as of `list_parquet`.

    Raises:
        ValueError: no audio column.
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
    """One split of a stream.

    Args:
        split: "" where it has none.
        data: the stream.
        identity: what tells this content from another, JSON-ready.
        files: that the shards are made of, named after them where there are as many.
    Raises:
        ValueError: no audio column.
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
        opened.seek(max(0, size - (64 << 10)))  # a Parquet file's end tells of all its columns
        return f"{size} bytes, {hashlib.sha256(opened.read()).hexdigest()}"


def _refused(source: str, reason: str) -> StreamedEntry:
    return StreamedEntry(source, source, None, None, "", None, problem=reason)


def _split_name(split: str) -> str:
    return SPLIT_NAMES.get(split.lower(), split)


def _has_split_column(part: StreamPart) -> bool:
    return any(name in part.columns for name in COLUMNS["split"])
