"""Parquet files with an audio column as a corpus.

Listing reads every column except the audio bytes. Audio is fetched row by row through a small
cache of row groups.
"""

from __future__ import annotations

import bisect
import os
from collections import OrderedDict
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tokgen.audio.files import AudioError, display_name
from tokgen.corpus.entries import AudioStore, Catalogue
from tokgen.corpus.remote import RemoteFile
from tokgen.corpus.splits import SPLIT_NAMES
from tokgen.corpus.tables import audio_column, audio_of, cell_of, list_batches, wanted_columns
from tokgen.storage import StoreError

__all__ = [
    "CACHED_GROUPS",
    "CACHE_BYTES",
    "REQUEST_BYTES",
    "ParquetStore",
    "list_parquet",
    "split_of",
]

CACHE_BYTES = 32 << 20  # held of one row group; a larger group is read in parts
CACHED_GROUPS = 2
REQUEST_BYTES = 8 << 20  # of audio per request to a store


class ParquetStore(AudioStore):
    """Fetches audio from Parquet files; holds at most `CACHED_GROUPS` parts of row groups.

    pyarrow also holds one Parquet page, which by default has up to 1024 rows of a row group.
    To save memory, write audio in row groups of about 100 rows. Remote files are read by ranges.

    Args:
        folder: path or URL. Paths in audio cells are only followed below it; None follows none.
        follow_links: follow paths anywhere; relative ones from `folder`.
    """

    def __init__(self, folder: Path | str | None, *, follow_links: bool = False) -> None:
        self.follow_links = follow_links
        self.files: list[Path | RemoteFile] = []
        self.roots = [] if folder is None else [folder]
        self.starts = [0]  # first row of each file, then the total
        self.groups: list[list[int]] = []  # for each file: first row of each group, then the total
        self.columns: list[str] = []
        self._forget()

    def _forget(self) -> None:
        self._open: OrderedDict[tuple[int, int], _GroupReader] = OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:  # a worker may have another working folder
        state = {name: value for name, value in vars(self).items() if name != "_open"}
        files = [f.absolute() if isinstance(f, Path) else f for f in self.files]
        roots = [root.absolute() if isinstance(root, Path) else root for root in self.roots]
        return state | {"files": files, "roots": roots}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def add(self, file: Path | RemoteFile, table: pq.ParquetFile, column: str) -> None:
        """Add a file, which is open as `table`; `column` holds its audio."""
        self.files.append(file)
        groups = [table.metadata.row_group(g).num_rows for g in range(table.num_row_groups)]
        self.groups.append([0, *accumulate(groups)])
        self.starts.append(self.starts[-1] + self.groups[-1][-1])
        self.columns.append(column)

    def _find(self, key: int) -> tuple[int, int]:
        """Return the file's position and the row in it."""
        f = bisect.bisect_right(self.starts, key) - 1
        return f, key - self.starts[f]

    def stamp(self, key: int) -> str | None:
        f, row = self._find(key)
        file = self.files[f]
        if isinstance(file, Path) or file.stamp is None:
            return None
        return f"{file.stamp}, row {row}"

    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        if self._process != os.getpid():  # a fork shares the positions in the parent's open files
            self._forget()
        f, row = self._find(key)
        g = bisect.bisect_right(self.groups[f], row) - 1
        source = f"{display_name(self.files[f].name)} row {row}"
        try:
            if (f, g) not in self._open:
                self._open[f, g] = _GroupReader(self.files[f], g, self.columns[f])
                if len(self._open) > CACHED_GROUPS:
                    self._open.popitem(last=False)
            self._open.move_to_end((f, g))
            cell = self._open[f, g].read(row - self.groups[f][g])
        except (pa.ArrowException, OSError, ValueError) as error:
            self._open.pop((f, g), None)
            if isinstance(error, StoreError):
                raise
            raise AudioError(source, f"the Parquet file is damaged ({error})") from error
        return audio_of(cell, source, self.roots, follow_links=self.follow_links)


class _GroupReader:
    """Reads one row group's audio column forward, in parts of about `CACHE_BYTES`."""

    def __init__(self, file: Path | RemoteFile, group: int, column: str) -> None:
        self.table = _open_table(file)
        self.group, self.column = group, column
        meta = self.table.metadata.row_group(group)
        self.n_rows = max(1, meta.num_rows * CACHE_BYTES // max(1, meta.total_byte_size))
        self._restart()

    def _restart(self) -> None:
        self.batches = self.table.iter_batches(
            self.n_rows, row_groups=[self.group], columns=[self.column]
        )
        self.start, self.batch = 0, self._next()

    def _next(self) -> pa.RecordBatch:
        batch = next(self.batches, None)
        if batch is None:
            raise pa.ArrowInvalid("a row group holds fewer rows than its header says")
        return batch

    def read(self, row: int) -> Any:
        if row < self.start:
            self._restart()
        while row >= self.start + len(self.batch):
            self.start += len(self.batch)
            self.batch = self._next()
        return cell_of(self.batch.column(0)[row - self.start])


def _open_table(file: Path | RemoteFile, *, listing: bool = False) -> pq.ParquetFile:
    if isinstance(file, Path):
        return pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False)
    if listing:  # a small column is fetched with one request
        return pq.ParquetFile(file.open(), pre_buffer=True)
    return pq.ParquetFile(file.open(), buffer_size=REQUEST_BYTES, pre_buffer=False)


def list_parquet(
    files: Sequence[Path | RemoteFile],
    folder: Path | str | None,
    catalogue: Catalogue,
    *,
    follow_links: bool = False,
) -> ParquetStore:
    """List Parquet files with an audio column {bytes, path}.

    Other columns are recognized by their usual names (`tokgen.corpus.metadata.COLUMNS`). If an
    earlier file has the same id, the id gets the name of its file as a prefix ("es/hello").
    Without a split column, the split is the one that the file's name starts with
    ("train-00000-of-00003.parquet"), if any.

    Args:
        folder, follow_links: as for `ParquetStore`.
        catalogue: receives the entries.
    Raises:
        ValueError: no file has an audio column.
    """
    store, other = ParquetStore(folder, follow_links=follow_links), None
    store.is_local = all(isinstance(file, Path) for file in files)
    for file in files:
        source, name = display_name(str(file)), display_name(file.name)
        try:
            table = _open_table(file, listing=True)
        except StoreError:
            raise
        except (pa.ArrowException, OSError) as error:
            catalogue.reject(source, f"not a Parquet file, or truncated ({error})")
            continue
        try:
            column = audio_column(table.schema_arrow, source)
        except ValueError as error:
            other = other or error
            catalogue.reject(source, str(error).removeprefix(f"{source} "))
            continue
        wanted = wanted_columns(table.schema_arrow, column)
        start = store.starts[-1]
        store.add(file, table, column)
        batches = table.iter_batches(1024, columns=wanted)
        if not wanted:  # the file holds only audio bytes, so list rows without columns
            batches = [pa.RecordBatch.from_pydict({"": pa.nulls(table.metadata.num_rows)})]
        try:
            list_batches(batches, column, catalogue, start, name, split_of(file) or None)
        except StoreError:
            raise
        except (pa.ArrowException, OSError) as error:
            catalogue.reject(source, f"the Parquet file is damaged ({error})")
    if other is not None and not store.files:
        raise other
    return store


def split_of(file: Path | RemoteFile) -> str:
    """Return the split that a file's name starts with ("train-00000-of-00003.parquet"), or ""."""
    return SPLIT_NAMES.get(file.stem.split("-")[0].split(".")[0].split("_")[0].lower(), "")
