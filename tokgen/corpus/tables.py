"""Tables with an audio column as a corpus, and Hugging Face datasets as such tables.

The audio column is named "audio", or it is the only one of type {bytes, path}. Other columns are
recognized by their usual names (`tokgen.corpus.metadata.COLUMNS`).
"""

from __future__ import annotations

import bisect
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tokgen.audio.files import AudioError
from tokgen.corpus.entries import AudioStore, Catalogue, shorten, stem, string
from tokgen.corpus.links import FIX, is_inside, roots_of, why_unreadable
from tokgen.corpus.metadata import COLUMNS
from tokgen.corpus.remote import RemoteFile, read_audio_file
from tokgen.corpus.saved import check_saved
from tokgen.storage import StoreError

__all__ = [
    "DatasetStore",
    "audio_column",
    "audio_of",
    "by_split",
    "cell_of",
    "list_batches",
    "list_dataset",
    "list_saved",
    "wanted_columns",
]


class DatasetStore(AudioStore):
    """Fetches audio from memory-mapped Hugging Face datasets.

    Args:
        roots: folders. Paths in audio cells are only followed below them.
        follow_links: follow paths anywhere; relative ones from the first root.
    """

    def __init__(self, roots: Sequence[Path], *, follow_links: bool = False) -> None:
        self.roots, self.follow_links = roots, follow_links
        self.parts: list[tuple[Any, str, str]] = []  # dataset in Arrow format, column, name
        self.starts = [0]  # first row of each part, then the total

    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        part = bisect.bisect_right(self.starts, key) - 1
        data, column, name = self.parts[part]
        row = key - self.starts[part]
        source = f"{name} row {row}"
        try:
            cells = data[row].column(column)
            if pa.types.is_struct(cells.type):
                pc.struct_field(cells, "bytes").validate(full=True)
            else:
                cells.validate(full=True)
            cell = cell_of(cells[0])
        except (pa.ArrowException, OSError) as error:
            raise AudioError(source, f"the saved dataset is damaged ({error})") from error
        return audio_of(cell, source, self.roots, follow_links=self.follow_links)


def list_dataset(
    splits: Mapping[str, Any],
    name: str,
    roots: Sequence[Path],
    catalogue: Catalogue,
    *,
    follow_links: bool = False,
) -> DatasetStore:
    """List Hugging Face datasets.

    Args:
        splits: datasets by split name, as `by_split` returns them.
        roots, follow_links: as for `DatasetStore`.
        catalogue: receives the entries.
    Raises:
        ValueError: a dataset has no audio column.
    """
    store = DatasetStore(roots, follow_links=follow_links)
    for split, data in splits.items():
        label = f"{name}[{split}]" if split else name
        column = audio_column(data.data.schema, label)
        data = data.with_format("arrow")
        start = store.starts[-1]
        store.parts.append((data.select_columns([column]), column, label))
        store.starts.append(start + len(data))
        wanted = [c.split(".")[0] for c in wanted_columns(data.data.schema, column)] or [column]
        batches = data.select_columns(list(dict.fromkeys(wanted))).iter(batch_size=256)
        try:
            list_batches(batches, column, catalogue, start, label, split or None)
        except (pa.ArrowException, OSError) as error:
            catalogue.reject(label, f"the saved dataset is damaged ({error})")
    return store


def list_saved(
    location: Path | str, name: str, catalogue: Catalogue, *, follow_links: bool = False
) -> DatasetStore:
    """List a dataset that `save_to_disk` wrote to a path or URL.

    `datasets` copies a remote dataset to this machine first. Paths in audio cells are only
    followed below a local folder.

    Args:
        follow_links: accept files and follow paths outside the folder.
    Raises:
        ValueError: the dataset is damaged, has no audio column, or names files outside its folder.
    """
    import datasets

    check_saved(location, follow_links=follow_links)
    try:
        saved: Any = datasets.load_from_disk(str(location))
    except StoreError:
        raise
    except Exception as error:  # `datasets` lets errors of any kind of damage pass
        raise ValueError(
            f"{location} is a saved dataset that cannot be opened: {shorten(str(error))}"
        ) from error
    roots = [location] if isinstance(location, Path) else []
    return list_dataset(by_split(saved), name, roots, catalogue, follow_links=follow_links)


def audio_column(schema: pa.Schema, name: str) -> str:
    """Return the column that holds audio: "audio", or the only one of type {bytes, path}.

    Raises:
        ValueError: no column or several columns fit.
    """

    def fits(kind: pa.DataType) -> bool:
        if pa.types.is_struct(kind) and (i := kind.get_field_index("bytes")) >= 0:
            if pa.types.is_null(kind.field(i).type):
                return kind.get_field_index("path") >= 0
            kind = kind.field(i).type
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    found = [f.name for f in schema if fits(f.type)]
    if "audio" in found:
        return "audio"
    if len(found) != 1:
        raise ValueError(
            f"{name} has no column 'audio' of type {{bytes, path}}; its columns are "
            f"{', '.join(schema.names)}"
        )
    return found[0]


def wanted_columns(schema: pa.Schema, column: str) -> list[str]:
    """Return the columns that listing reads; "audio.path" is the path inside an audio struct."""
    wanted = [name for names in COLUMNS.values() for name in names if name in schema.names]
    return [*wanted, f"{column}.path"] if _has_path(schema.field(column)) else wanted


def _has_path(field: pa.Field) -> bool:
    return pa.types.is_struct(field.type) and field.type.get_field_index("path") >= 0


def list_batches(
    batches: Iterable[pa.RecordBatch | pa.Table],
    column: str,
    catalogue: Catalogue,
    start: int,
    name: str,
    split: str | None,
    first: int = 0,
) -> None:
    """List consecutive rows of a table.

    Args:
        batches: of rows. They may have the audio column, only its paths, or neither.
        column: name of the audio column.
        catalogue: receives the entries.
        start: key of the table's first row.
        split: for rows without a split of their own; None assigns one by id.
        first: row of the table with which the batches begin.
    """
    for batch in batches:
        values = {
            key: _values(batch.column(found))
            for key, names in COLUMNS.items()
            if (found := next((n for n in names if n in batch.schema.names), None))
        }
        paths: list[Any] = [None] * batch.num_rows
        if column in batch.schema.names and _has_path(batch.schema.field(column)):
            paths = _values(pc.struct_field(batch.column(column), "path"))
        for row, path in enumerate(paths, first):
            fields = {key: column_values[row - first] for key, column_values in values.items()}
            if bad := [key for key, value in fields.items() if value is _UNREADABLE]:
                catalogue.reject(
                    f"{name} row {row}", f"its {bad[0]} cannot be read: not UTF-8, or out of range"
                )
                continue
            path = path if isinstance(path, str) else None
            id = string(fields.get("id"))
            if id is None:
                id = stem(path) if path and not os.path.isabs(path) else f"{name}-{row:06d}"
                id = f"{id}-{row:06d}" if id in catalogue.sources else id
            if not catalogue.sources.get(id, f"{name} row ").startswith(f"{name} row "):
                id = f"{stem(name)}/{id}"  # another table has this id
            if split is not None:
                fields["split"] = fields.get("split") or split
            catalogue.add(start + row, id, f"{name} row {row} ({id})", fields)
        first += batch.num_rows


_UNREADABLE = object()  # in place of a value that Python cannot hold


def _values(column: pa.Array | pa.ChunkedArray) -> list[Any]:
    """Return the values of a column.

    Raises:
        ArrowException: the column is damaged.
    """
    try:
        column.validate(full=True)
        return column.to_pylist()
    except (pa.ArrowException, ValueError, OverflowError) as error:
        if isinstance(error, pa.ArrowException) and "UTF8" not in str(error):
            raise

    def value(scalar: pa.Scalar) -> Any:
        try:
            return scalar.as_py()
        except (ValueError, OverflowError):
            return _UNREADABLE

    return [value(scalar) for scalar in column]


def cell_of(scalar: pa.Scalar) -> Any:
    """Return the value of an audio cell, without a path that is not text."""
    if not isinstance(scalar, pa.StructScalar):
        return scalar.as_py()
    if not scalar.is_valid:
        return None
    try:
        path = scalar["path"].as_py() if "path" in scalar else None
    except ValueError:
        path = b""  # not UTF-8
    return {"bytes": scalar["bytes"].as_py(), "path": path}


def audio_of(
    cell: Any, source: str, roots: Sequence[Path | str], *, follow_links: bool = False
) -> tuple[Path | bytes, str]:
    """Return an audio cell's bytes or file, and a name whose suffix tells the format.

    Args:
        cell: bytes, or {bytes, path}.
        source: table and row, for errors.
        roots: paths or URLs of folders. A path in the cell is only followed below them.
        follow_links: follow a path anywhere on this machine, if a root is on it.
    Raises:
        AudioError: the cell holds no audio, or its path is below none of the roots.
        StoreError: a store does not answer.
    """
    if isinstance(cell, bytes):
        return cell, source
    data, path = (cell or {}).get("bytes"), (cell or {}).get("path")
    if data is not None:
        return data, path if isinstance(path, str) and path else source
    if path in (None, ""):
        raise AudioError(source, "the row holds no audio")
    if not isinstance(path, str):
        raise AudioError(source, "the row holds no audio, and its path is not text")
    for root in roots:
        if isinstance(root, str):
            inside = posixpath.normpath(path)
            if "://" in path or posixpath.isabs(path) or inside.split("/")[0] == "..":
                continue
            if "::" in inside:  # fsspec's syntax for a chain of stores
                continue
            return read_audio_file(RemoteFile.find(f"{root}/{inside}")), path
        full = Path(os.path.realpath(os.path.join(root, path.replace("\0", ""))))
        if follow_links or is_inside(full, roots_of(root)):
            if reason := why_unreadable(full):
                raise AudioError(source, f"its path {shorten(path, 100)!r}: {reason}")
            return full, path
    fix = f": {FIX}" if roots and isinstance(roots[0], Path) else "; it is not followed"
    raise AudioError(source, f"its path {shorten(path, 100)!r} leaves the corpus' folder{fix}")


def by_split(found: Any) -> dict[str, Any]:
    """Return datasets by split name; the name is "" if there is no split."""
    if isinstance(found, Mapping):
        return {str(split): data for split, data in found.items()}
    return {"" if found.split is None else str(found.split): found}
