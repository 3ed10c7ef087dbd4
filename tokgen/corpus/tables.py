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
from tokgen.corpus.entries import AudioStore, Catalogue, stem, string
from tokgen.corpus.metadata import COLUMNS
from tokgen.corpus.remote import RemoteFile, read_audio_file

__all__ = [
    "DatasetStore",
    "audio_column",
    "audio_of",
    "by_split",
    "list_batches",
    "list_dataset",
    "list_saved",
    "wanted_columns",
]


class DatasetStore(AudioStore):
    """Fetches audio from memory-mapped Hugging Face datasets.

    Args:
        roots: folders. Paths in audio cells are only followed below them.
    """

    def __init__(self, roots: Sequence[Path]) -> None:
        self.roots = roots
        self.parts: list[tuple[Any, str, str]] = []  # dataset in Arrow format, column, name
        self.starts = [0]  # first row of each part, then the total

    def fetch(self, key: int) -> tuple[Path | bytes, str]:
        part = bisect.bisect_right(self.starts, key) - 1
        data, column, name = self.parts[part]
        row = key - self.starts[part]
        source = f"{name} row {row}"
        try:
            cell = data[row].column(column)[0].as_py()
        except (pa.ArrowException, OSError) as error:
            raise AudioError(source, f"the saved dataset is damaged ({error})") from error
        return audio_of(cell, source, self.roots)


def list_dataset(
    splits: Mapping[str, Any], name: str, roots: Sequence[Path], catalogue: Catalogue
) -> DatasetStore:
    """List Hugging Face datasets.

    Args:
        splits: datasets by split name, as `by_split` returns them.
        roots: as for `DatasetStore`.
        catalogue: receives the entries.
    Raises:
        ValueError: a dataset has no audio column.
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
        batches = data.select_columns(list(dict.fromkeys(wanted))).iter(batch_size=256)
        list_batches(batches, column, catalogue, start, label, split or None)
    return store


def list_saved(location: Path | str, name: str, catalogue: Catalogue) -> DatasetStore:
    """List a dataset that `save_to_disk` wrote to a path or URL.

    `datasets` copies a remote dataset to this machine first. Paths in audio cells are only
    followed below a local folder.
    """
    import datasets

    try:
        saved: Any = datasets.load_from_disk(str(location))
    except (OSError, ValueError, pa.ArrowException) as error:
        raise ValueError(f"{location} is a saved dataset that cannot be opened: {error}") from error
    roots = [location] if isinstance(location, Path) else []
    return list_dataset(by_split(saved), name, roots, catalogue)


def audio_column(schema: pa.Schema, name: str) -> str:
    """Return the column that holds audio: "audio", or the only one of type {bytes, path}.

    Raises:
        ValueError: no column or several columns fit.
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
            key: batch.column(found).to_pylist()
            for key, names in COLUMNS.items()
            if (found := next((n for n in names if n in batch.schema.names), None))
        }
        paths: list[str | None] = [None] * batch.num_rows
        if column in batch.schema.names and _has_path(batch.schema.field(column)):
            paths = pc.struct_field(batch.column(column), "path").to_pylist()
        for row, path in enumerate(paths, first):
            fields = {key: column_values[row - first] for key, column_values in values.items()}
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


def audio_of(cell: Any, source: str, roots: Sequence[Path | str]) -> tuple[Path | bytes, str]:
    """Return an audio cell's bytes or file, and a name whose suffix tells the format.

    Args:
        cell: bytes, or {bytes, path}.
        source: table and row, for errors.
        roots: paths or URLs of folders. A path in the cell is only followed below them.
    Raises:
        AudioError: the cell holds no audio, or its path is below none of the roots.
        StoreError: a store does not answer.
    """
    if isinstance(cell, bytes):
        return cell, source
    data, path = (cell or {}).get("bytes"), (cell or {}).get("path")
    if data is not None:
        return data, path or source
    if not path:
        raise AudioError(source, "the row holds no audio")
    for root in roots:
        if isinstance(root, str):
            inside = posixpath.normpath(path)
            if "://" in path or posixpath.isabs(path) or inside.split("/")[0] == "..":
                continue
            if "::" in inside:  # fsspec's syntax for a chain of stores
                continue
            return read_audio_file(RemoteFile.find(f"{root}/{inside}")), path
        full = os.path.realpath(os.path.join(root, path.replace("\0", "")))
        if full.startswith(os.path.realpath(root) + os.sep):
            return Path(full), path
    raise AudioError(source, f"its path {path!r} leaves the corpus' folder; it is not followed")


def by_split(found: Any) -> dict[str, Any]:
    """Return datasets by split name; the name is "" if there is no split."""
    if isinstance(found, Mapping):
        return {str(split): data for split, data in found.items()}
    return {"" if found.split is None else str(found.split): found}
