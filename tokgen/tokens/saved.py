"""Open the files of a token dataset on this machine or behind a URL.

`datasets` follows names and links out of a dataset's folder, and reports damage without naming the
file. The functions here refuse the former and name the file.
"""

from __future__ import annotations

import errno
import glob
import json
import logging
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq

from tokgen.corpus.links import is_inside, roots_of
from tokgen.runs.progress import quiet_libraries
from tokgen.storage import Storage, find_filesystem, is_url
from tokgen.tokens.provenance import PROVENANCE

if TYPE_CHECKING:
    from datasets import DatasetDict

__all__ = [
    "CORPUS",
    "LARGEST_JSON",
    "PLAN",
    "REJECTIONS",
    "check_inside",
    "iter_columns",
    "lengths_in",
    "one_line",
    "open_arrow",
    "open_parquet",
    "read_shard",
    "shards_in",
    "split_of_file",
]

REJECTIONS, PLAN, CORPUS = "rejections.jsonl", "plan.json", "corpus.jsonl"
LARGEST_JSON = 16 << 20  # bytes of a JSON file of `datasets`; a real one has some thousand
_FIX = "restore it from a copy, or make the dataset again with `tokgen tokenize`"
_SHARD = re.compile(r"data/(?P<split>\w+(\.\w+)*)-(\d{9}|\d{5,}-of-\d{5,})\.parquet")
_DAMAGE = (pa.ArrowException, ValueError, TypeError, RecursionError, MemoryError)
_NUMBERED = re.compile(r"(?P<split>\w+(\.\w+)*)-(\d{9}|\d{5,}-of-\d{5,})")
_WORDS = {
    "train": ("train", "training"),
    "validation": ("validation", "valid", "dev", "val"),
    "test": ("test", "testing", "eval", "evaluation"),
}


def open_arrow(folder: Path, *, follow_links: bool) -> DatasetDict:
    """Open a `datasets.DatasetDict` that `save_to_disk` wrote.

    Args:
        folder: its folder.
        follow_links: accept names and links that lead out of the folder.
    Raises:
        ValueError: a file is damaged, or leads out of the folder; the message names it.
    """
    from datasets import load_from_disk

    splits = _read_json(folder, "dataset_dict.json", follow_links).get("splits")
    if not isinstance(splits, list) or not splits or not all(isinstance(s, str) for s in splits):
        raise ValueError(f"{folder / 'dataset_dict.json'} lists no splits: {_FIX}")
    shards: list[str] = []
    for split in splits:
        _read_json(folder, f"{split}/dataset_info.json", follow_links)
        listed = _read_json(folder, f"{split}/state.json", follow_links).get("_data_files")
        try:
            names = [os.path.join(split, file["filename"]) for file in listed or []]
        except (TypeError, KeyError) as error:
            raise ValueError(
                f"{folder / split / 'state.json'} lists no data files: {_FIX}"
            ) from error
        for name in names:
            shards.append(str(_existing(folder, name, follow_links)))
    try:
        with _quiet():
            return load_from_disk(str(folder))
    except Exception as error:  # `datasets` lets errors of any kind of damage pass
        _name_damaged(shards, _read_arrow)
        raise ValueError(f"{folder} is damaged ({one_line(error)}): {_FIX}") from error


def open_parquet(files: Mapping[str, list[str]], cache: str | None, source: str) -> DatasetDict:
    """Open Parquet files, through the cache of `datasets`.

    Args:
        files: paths or URLs by split, in order.
        cache: folder for copies; None is the cache of `datasets`.
        source: name of the dataset, for messages.
    Raises:
        ValueError: a file is damaged or has other columns than the first; the message names it.
        OSError: the copies cannot be written.
    """
    from datasets import load_dataset

    for name in chain.from_iterable(files.values()):
        if not is_url(name) and not Path(name).is_file():  # reading a pipe would wait for ever
            raise ValueError(f"{name} is not a file: {_FIX}")
    patterns = {split: [glob.escape(name) for name in names] for split, names in files.items()}
    try:
        with _quiet():
            return load_dataset("parquet", data_files=patterns, cache_dir=cache)
    except Exception as error:  # `datasets` lets errors of any kind of damage pass
        found: BaseException | None = error
        while found is not None and not (isinstance(found, OSError) and found.errno):
            found = found.__cause__ or found.__context__
        if found is not None and found.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(
                f"{source} cannot be copied to the cache of `datasets` ({found.strerror}): make "
                "room, or pass another folder as cache_dir"
            ) from error
        names = list(chain.from_iterable(files.values()))
        _name_damaged(names, _read_parquet)
        first = _schema(names[0])
        for name in names[1:]:
            if not _schema(name).equals(first):
                raise ValueError(
                    f"{name} has other columns than {names[0]}: keep the files of one dataset"
                ) from error
        raise ValueError(f"{source} cannot be opened ({one_line(error)}): {_FIX}") from error


def shards_in(storage: Storage) -> dict[str, list[str]]:
    """Return the locations of a finished dataset's Parquet files by split, in order."""
    files: dict[str, list[str]] = {}
    if storage.exists(PROVENANCE) or not storage.exists(PLAN):
        for name in storage.names("data/"):
            if found := _SHARD.fullmatch(name):
                files.setdefault(found["split"], []).append(f"{storage.url}/{name}")
    if not files and storage.path is not None:  # as `datasets` wrote them
        for file in sorted(storage.path.glob("*.parquet")):
            files.setdefault(split_of_file(file.stem), []).append(str(file))
    return files


def lengths_in(storage: Storage) -> Iterator[int]:
    """Yield the number of samples of every utterance, without reading codes."""
    if storage.exists("dataset_dict.json"):
        for part in open_arrow(Path(storage.url), follow_links=False).values():
            yield from part.data["n_samples"].to_pylist()
        return
    for name in storage.names("data/"):
        yield from read_shard(storage, name, ["n_samples"])["n_samples"].to_pylist()


def read_shard(storage: Storage, name: str, columns: Sequence[str] | None = None) -> pa.Table:
    """Read a Parquet file, or some of its columns, without threads.

    pyarrow's read-ahead threads abort the process if they are still reading when it ends.
    """
    with storage.open(name) as file, pq.ParquetFile(file, pre_buffer=False) as table:
        return table.read(columns, use_threads=False)


def iter_columns(location: str, columns: Sequence[str]) -> Iterator[pa.Table]:
    """Yield some columns of a Parquet file, of one group of rows at a time, without threads.

    An empty table with all columns comes first.

    Args:
        location: path or URL.
        columns: names of columns; those that the file lacks are left out.
    Raises:
        ValueError: the file is damaged; the message names it.
    """
    try:
        with _open(location) as file, pq.ParquetFile(file, pre_buffer=False) as table:
            yield table.schema_arrow.empty_table()
            names = [name for name in columns if name in table.schema_arrow.names]
            for group in range(table.num_row_groups):
                yield table.read_row_group(group, names, use_threads=False)
    except _DAMAGE as error:
        raise ValueError(f"{location} cannot be read ({one_line(error)}): {_FIX}") from error


def check_inside(folder: Path, paths: Iterable[Path]) -> None:
    """Raise ValueError if a file is a link that leads out of a folder.

    In a snapshot of the Hugging Face hub's cache, links to the blobs beside it are accepted.
    """
    roots = roots_of(folder)
    for path in paths:
        if not is_inside(path, roots):
            named = path if folder in path.parents else f"{path}, named in {folder},"
            raise ValueError(
                f"{named} leads out of the dataset's folder, to {os.path.realpath(path)}: copy the "
                "file into the folder, or pass follow_links=True if you trust the dataset"
            )


def split_of_file(stem: str) -> str:
    """Return the split of a Parquet file, as `datasets` finds it in the file's name."""
    if found := _NUMBERED.fullmatch(stem):
        return found["split"]
    words = set(re.split(r"[\W_\d]+", stem))
    return next((split for split, known in _WORDS.items() if words & set(known)), "train")


def _existing(folder: Path, name: str, follow_links: bool) -> Path:
    """Return the path of a file that a dataset names."""
    path = folder / name
    if name.isprintable() and not follow_links:
        check_inside(folder, [path])
    if not name.isprintable() or not os.path.isfile(path):
        shown = name if len(name) <= 200 else f"{name[:200]}…"
        raise ValueError(f"{folder} lacks its file {shown!r}: {_FIX}")
    return path


def _read_json(folder: Path, name: str, follow_links: bool) -> dict[str, Any]:
    path = _existing(folder, name, follow_links)
    try:
        with path.open("rb") as file:
            text = file.read(LARGEST_JSON + 1)
        if len(text) > LARGEST_JSON:
            raise ValueError(f"over {LARGEST_JSON} bytes")
        content = json.loads(text)
        if not isinstance(content, dict):
            raise ValueError(f"a {type(content).__name__}, not an object")
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is damaged ({one_line(error)}): {_FIX}") from error
    return content


def _name_damaged(files: Iterable[str], read: Any) -> None:
    """Raise ValueError for the first file that cannot be read."""
    for name in files:
        try:
            with ExitStack() as stack:
                read(stack.enter_context(_open(name)))
        except (*_DAMAGE, OSError) as error:
            raise ValueError(f"{name} cannot be read ({one_line(error)}): {_FIX}") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Hide the bars and messages of `datasets`: errors are raised in one line."""
    logger = logging.getLogger("datasets")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with quiet_libraries():
            yield
    finally:
        logger.setLevel(before)


def _open(name: str) -> IO[bytes]:
    if is_url(name):
        filesystem, path = find_filesystem(name)
        return filesystem.open(path, "rb")
    return open(name, "rb")


def _read_parquet(file: IO[bytes]) -> None:
    with pq.ParquetFile(file, pre_buffer=False) as table:
        for _ in table.iter_batches(use_threads=False):
            pass


def _read_arrow(file: IO[bytes]) -> None:
    for _ in pa.ipc.open_stream(file):
        pass


def _schema(name: str) -> pa.Schema:
    with _open(name) as file:
        return pq.read_schema(file)


def one_line(error: BaseException) -> str:
    """Return the cause of an error in one line of at most 200 characters."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:200]}…"
