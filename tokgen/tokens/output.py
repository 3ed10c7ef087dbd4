"""Shards -> the finished token dataset: Arrow to train from, or the Parquet shards themselves.

    arrow     a `datasets.DatasetDict` on this machine, memory-mapped when it is opened
    parquet   data/<split>-<unit>.parquet as they are, on any store; nothing is read again

A local dataset appears whole, by one rename. On object storage it counts from the moment that
provenance.json stands in it.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from tokgen.corpus.entries import Rejection
from tokgen.storage import Storage
from tokgen.tokens.dataset import PROVENANCE, REJECTIONS, quiet_datasets
from tokgen.tokens.shards import PLAN, Shard, ShardStore

FORMATS = ("arrow", "parquet")


@contextmanager
def hold_work(out: Storage) -> Iterator[None]:
    """Hold the work on a dataset for one run at a time, where it is on this machine.

    Raises:
        ValueError: another process works on the same dataset.
    """
    from filelock import FileLock, Timeout

    if out.path is None:
        yield
        return
    folder = partial_folder(out.path)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        with lock:
            yield
    except Timeout as error:
        raise ValueError(f"another process is tokenizing into {out.path}: wait for it") from error


def clear_work(out: Storage) -> None:
    """Delete what a run that was killed at its very end left behind."""
    if out.path is not None:
        shutil.rmtree(partial_folder(out.path), ignore_errors=True)
    else:
        for name in [PLAN, *out.names("done/")]:
            out.delete(name)


def read_rejections(out: Storage) -> list[Rejection]:
    """What `publish` wrote into rejections.jsonl."""
    return [Rejection(**json.loads(line)) for line in out.read(REJECTIONS).splitlines()]


def work_storage(out: Storage) -> Storage:
    """Where shards of the dataset `out` are kept until it is done."""
    return out if out.path is None else Storage(partial_folder(out.path))


def partial_folder(out: Path) -> Path:
    """Where work on the local dataset `out` is kept until it is done."""
    return out.parent / f".{out.name}.partial"


def publish(
    store: ShardStore,
    out: Storage,
    format: str,
    shards: Sequence[Shard],
    rejections: Sequence[Rejection],
) -> None:
    """Put the dataset together at `out`, then clear up.

    Args:
        store: holds the shards; for a local `out` its folder is `partial_folder(out)`.
        format: of `FORMATS`.
        shards: all units in order.
        rejections: of the corpus and the shards.
    """
    provenance = json.dumps(store.provenance.as_dict(), indent=2).encode() + b"\n"
    lines = b"".join(json.dumps(asdict(r)).encode() + b"\n" for r in rejections)
    if out.path is None:
        out.write(REJECTIONS, lines)
        out.write(PROVENANCE, provenance)
        clear_work(out)
        return
    folder = partial_folder(out.path)
    building = folder / "dataset"
    shutil.rmtree(building, ignore_errors=True)
    if format == "arrow":
        _write_arrow(store, shards, building)
    else:
        (building / "data").mkdir(parents=True)
        for shard in shards:
            for name in map(shard.file_name, shard.splits):  # links: a kill here loses nothing
                os.link(folder / name, building / name)
    (building / PROVENANCE).write_bytes(provenance)
    (building / REJECTIONS).write_bytes(lines)
    for path in building.rglob("*"):
        _flush(path)
    out.path.parent.mkdir(parents=True, exist_ok=True)
    os.rename(building, out.path)
    _flush(out.path.parent)
    shutil.rmtree(folder)


def _write_arrow(store: ShardStore, shards: Sequence[Shard], building: Path) -> None:
    from datasets import Dataset, DatasetDict, DatasetInfo, NamedSplit
    from datasets.table import MemoryMappedTable

    text = json.dumps(store.provenance.as_dict())
    parts = {}
    for split in dict.fromkeys(split for shard in shards for split in shard.splits):
        path = building.parent / f"split-{split}.arrow"
        with (
            pa.OSFile(str(path), "wb") as file,
            pa.ipc.new_stream(file, store.schema) as writer,
        ):
            for batch in store.batches(split, shards):
                writer.write_batch(batch)
        parts[split] = Dataset(
            MemoryMappedTable.from_file(str(path)),
            info=DatasetInfo(description=text, features=store.features),
            split=NamedSplit(split),
            fingerprint=hashlib.sha256(f"{split} {text}".encode()).hexdigest()[:16],
        )
    with quiet_datasets():
        DatasetDict(parts).save_to_disk(str(building))


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
