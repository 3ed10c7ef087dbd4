"""Tables as a corpus: Parquet files and Hugging Face datasets with an audio column.

Listing reads every column but the audio bytes; those are fetched row by row, from a small cache
of Parquet row groups or from the memory-mapped dataset.
"""

from __future__ import annotations

import bisect
import os
import posixpath
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tokgen.audio.files import AudioError, display_name
from tokgen.corpus.entries import SPLIT_NAMES, AudioStore, Catalogue, stem, string
from tokgen.corpus.metadata import COLUMNS
from tokgen.corpus.remote import RemoteFile, StoreError, read_audio_file

CACHE_BYTES = 32 << 20  # of a row group held at once; a larger one is read in stretches
CACHED_GROUPS = 2
REQUEST_BYTES = 8 << 20  # of audio asked from a store at once


class ParquetStore(AudioStore):
    """Rows of Parquet files; holds the audio of at most `CACHED_GROUPS` stretches of rows.

    Memory also holds one Parquet page, which pyarrow by default fills with up to 1024 rows of a
    row group: write audio in row groups of 100 rows or so. Files behind URLs are read by ranges.

    Args:
        files: tables.
        folder: below which paths in cells are followed; a path, a URL, or None for none.
    """

    def __init__(self, files: Sequence[Path | RemoteFile], folder: Path | str | None) -> None:
        self.files = files
        self.roots = [] if folder is None else [folder]
        self.starts = [0]  # first row of each file, and the total
        self.groups: list[list[int]] = []  # the same for the row groups of each file
        self.columns: list[str] = []
        self._forget()

    def _forget(self) -> None:
        self._open: OrderedDict[tuple[int, int], _GroupReader] = OrderedDict()
        self._process = os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        state = {name: value for name, value in vars(self).items() if name != "_open"}
        here = [f.absolute() if isinstance(f, Path) else f for f in self.files]
        roots = [root.absolute() if isinstance(root, Path) else root for root in self.roots]
        return state | {"files": here, "roots": roots}  # for other working folders

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._forget()

    def add(self, file: pq.ParquetFile, column: str) -> None:
        groups = [file.metadata.row_group(g).num_rows for g in range(file.num_row_groups)]
        self.groups.append([0, *accumulate(groups)])
        self.starts.append(self.starts[-1] + self.groups[-1][-1])
        self.columns.append(column)

    def _find(self, key: int) -> tuple[int, int]:
        """File, and row in it."""
        f = bisect.bisect_right(self.starts, key) - 1
        return f, key - self.starts[f]

    def stamp(self, key: int) -> str | None:
        f, row = self._find(key)
        file = self.files[f]
        if isinstance(file, Path) or file.stamp is None:
            return None
        return f"{file.stamp}, row {row}"

    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        if self._process != os.getpid():  # a fork: positions in open files are the parent's too
            self._forget()
        f, row = self._find(key)
        g = bisect.bisect_right(self.groups[f], row) - 1
        where = f"{display_name(self.files[f].name)} row {row}"
        try:
            if (f, g) not in self._open:
                self._open[f, g] = _GroupReader(self.files[f], g, self.columns[f])
                if len(self._open) > CACHED_GROUPS:
                    self._open.popitem(last=False)
            self._open.move_to_end((f, g))
            cell = self._open[f, g].read(row - self.groups[f][g])
        except StoreError:
            self._open.pop((f, g), None)
            raise
        except (pa.ArrowException, OSError) as error:
            self._open.pop((f, g), None)
            raise AudioError(where, f"the Parquet file is damaged ({error})") from error
        return audio_of(cell, where, self.roots)


class _GroupReader:
    """One row group's audio column, read forward in stretches of about `CACHE_BYTES`."""

    def __init__(self, path: Path | RemoteFile, group: int, column: str) -> None:
        self.file = _open_table(path)
        self.group, self.column = group, column
        meta = self.file.metadata.row_group(group)
        self.n_rows = max(1, meta.num_rows * CACHE_BYTES // max(1, meta.total_byte_size))
        self._restart()

    def _restart(self) -> None:
        self.batches = self.file.iter_batches(
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
        return self.batch.column(0)[row - self.start].as_py()


def _open_table(path: Path | RemoteFile, *, listing: bool = False) -> pq.ParquetFile:
    if isinstance(path, Path):
        return pq.ParquetFile(path, buffer_size=1 << 20, pre_buffer=False)
    if listing:  # small columns: their stretches of the file in one go
        return pq.ParquetFile(path.open(), pre_buffer=True)
    return pq.ParquetFile(path.open(), buffer_size=REQUEST_BYTES, pre_buffer=False)


def list_parquet(
    files: Sequence[Path | RemoteFile], folder: Path | str | None, catalogue: Catalogue
) -> ParquetStore:
    """Parquet files with an audio column {bytes, path}; other columns by their usual names.

    An id that an earlier file has too gets its own file's name before it ("es/hello").
    A file without a split column belongs to the split its name starts with
    ("train-00000-of-00003.parquet"), if any.

    Raises:
        ValueError: a file has no audio column.
    """
    good: list[Path | RemoteFile] = []
    store = ParquetStore(good, folder)
    store.is_local = all(isinstance(path, Path) for path in files)
    for path in files:
        try:
            file = _open_table(path, listing=True)
        except StoreError:
            raise
        except (pa.ArrowException, OSError) as error:
            catalogue.reject(display_name(str(path)), f"not a Parquet file, or truncated ({error})")
            continue
        column = audio_column(file.schema_arrow, display_name(str(path)))
        wanted = wanted_columns(file.schema_arrow, column)
        split = split_of(path) or None
        start, name = store.starts[-1], display_name(path.name)
        good.append(path)
        store.add(file, column)
        batches = file.iter_batches(1024, columns=wanted) if wanted else _blank(file)
        try:
            _list_rows(batches, column, catalogue, start, name, split)
        except StoreError:
            raise
        except (pa.ArrowException, OSError) as error:
            catalogue.reject(display_name(str(path)), f"the Parquet file is damaged ({error})")
    return store


def split_of(file: Path | RemoteFile) -> str:
    """Split that a file's name starts with ("train-00000-of-00003.parquet"), "" where none."""
    return SPLIT_NAMES.get(file.stem.split("-")[0].split(".")[0].split("_")[0].lower(), "")


def wanted_columns(schema: pa.Schema, column: str) -> list[str]:
    """Columns that listing reads, with "audio.path" for the part of a struct."""
    wanted = [name for names in COLUMNS.values() for name in names if name in schema.names]
    kind = schema.field(column).type
    if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
        wanted.append(f"{column}.path")
    return wanted


def _blank(file: pq.ParquetFile) -> Iterator[pa.RecordBatch]:
    """Rows without columns: a file that has nothing beside its audio bytes."""
    yield pa.RecordBatch.from_pydict({"": pa.nulls(file.metadata.num_rows)})


class DatasetStore(AudioStore):
    """Rows of memory-mapped Hugging Face datasets."""

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = roots
        self.parts: list[tuple[Any, str, str]] = []  # dataset in arrow format, column, name
        self.starts = [0]

    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        part = bisect.bisect_right(self.starts, key) - 1
        data, column, name = self.parts[part]
        row = key - self.starts[part]
        where = f"{name} row {row}"
        try:
            cell = data[row].column(column)[0].as_py()
        except (pa.ArrowException, OSError) as error:
            raise AudioError(where, f"the saved dataset is damaged ({error})") from error
        return audio_of(cell, where, self.roots)


def list_dataset(
    splits: Mapping[str, Any], name: str, roots: Sequence[Path], catalogue: Catalogue
) -> DatasetStore:
    """Hugging Face datasets by split name ("" where there is none).

    Raises:
        ValueError: one has no audio column.
    """
    store = DatasetStore(roots)
    for split, data in splits.items():
        label = f"{name}[{split}]" if split else name
        column = audio_column(data.data.schema, label)
        data = data.with_format("arrow")
        start = store.starts[-1]
        store.parts.append((data.select_columns([column]), column, label))
        store.starts.append(start + len(data))
        wanted = [c.split(".")[0] for c in wanted_columns(data.data.schema, column)] or [column]
        rows = data.select_columns(list(dict.fromkeys(wanted))).iter(batch_size=256)
        _list_rows(rows, column, catalogue, start, label, split or None)
    return store


def audio_column(schema: pa.Schema, where: str) -> str:
    """The column that holds audio: "audio", or the only one of type {bytes, path}.

    Raises:
        ValueError: there is none, or several.
    """

    def fits(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind) and (i := kind.get_field_index("bytes")) >= 0:
            kind = kind.field(i).type
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found = [f.name for f in schema if fits(f.type)]
    if "audio" in found:
        return "audio"
    if len(found) != 1:
        raise ValueError(
            f"{where} has no column 'audio' of type {{bytes, path}}; its columns are "
            f"{', '.join(schema.names)}"
        )
    return found[0]


def _list_rows(
    batches: Any, column: str, catalogue: Catalogue, start: int, name: str, split: str | None
) -> None:
    row = 0
    for batch in batches:
        list_batch(batch, column, catalogue, start, row, name, split)
        row += batch.num_rows


def list_batch(
    batch: pa.RecordBatch | pa.Table,
    column: str,
    catalogue: Catalogue,
    start: int,
    first: int,
    name: str,
    split: str | None,
) -> None:
    """List some rows of a table; `column` may be there, with its paths alone, or not at all.

    Args:
        start: key of the table's first row.
        first: row of the table that the batch begins with.
        name: of the table.
        split: of rows that do not say; None to assign one.
    """
    values = {
        key: batch.column(found).to_pylist()
        for key, names in COLUMNS.items()
        if (found := next((n for n in names if n in batch.schema.names), None))
    }
    paths: list[str | None] = [None] * batch.num_rows
    if column in batch.schema.names:
        kind = batch.schema.field(column).type
        if pa.types.is_struct(kind) and kind.get_field_index("path") >= 0:
            paths = pc.struct_field(batch.column(column), "path").to_pylist()
    for i, path in enumerate(paths):
        row = first + i
        fields = {key: column_values[i] for key, column_values in values.items()}
        id = string(fields.get("id"))
        if id is None:
            id = stem(path) if path and not os.path.isabs(path) else f"{name}-{row:06d}"
            id = f"{id}-{row:06d}" if id in catalogue else id
        elsewhere = catalogue.source_of(id)
        if elsewhere is not None and not elsewhere.startswith(f"{name} row "):
            id = f"{stem(name)}/{id}"
        if split is not None:
            fields["split"] = fields.get("split") or split
        catalogue.add(start + row, id, f"{name} row {row} ({id})", fields)


def audio_of(cell: Any, where: str, roots: Sequence[Path | str]) -> tuple[Path | bytes, str]:
    """Bytes of an audio cell, or its file if that lies below one of `roots` (paths or URLs).

    Raises:
        AudioError: neither.
        StoreError: a store does not answer.
    """
    if isinstance(cell, bytes):
        return cell, where
    data, path = (cell or {}).get("bytes"), (cell or {}).get("path")
    if data is not None:
        return data, path or where
    if not path:
        raise AudioError(where, "the row holds no audio")
    for root in roots:
        if isinstance(root, str):
            inside = posixpath.normpath(path)
            if "://" in path or posixpath.isabs(path) or inside.split("/")[0] == "..":
                continue
            if "::" in inside:  # which fsspec takes for a chain of stores
                continue
            return read_audio_file(RemoteFile.find(f"{root}/{inside}")), path
        full = os.path.realpath(os.path.join(root, path.replace("\0", "")))
        if full.startswith(os.path.realpath(root) + os.sep):
            return Path(full), path
    raise AudioError(where, f"its path {path!r} leaves the corpus' folder; it is not followed")


def by_split(found: Any) -> dict[str, Any]:
    """Datasets by split name, "" where it has none."""
    if isinstance(found, Mapping):
        return {str(split): data for split, data in found.items()}
    return {"" if found.split is None else str(found.split): found}
