"""Make the finished token dataset from shards, in one of two formats.

    arrow     a `datasets.DatasetDict` on this machine, memory-mapped when it is opened
    parquet   the shards as they are, data/<split>-<unit>.parquet, on any store

A local dataset appears complete, by one rename. A dataset on object storage is complete as soon as
it has provenance.json.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa

from tokgen.corpus.entries import Rejection
from tokgen.storage import Storage, flush
from tokgen.tokens.dataset import PROVENANCE, REJECTIONS, quiet_datasets, read_shard
from tokgen.tokens.shards import PLAN, Shard, ShardStore

FORMATS = ("arrow", "parquet")


@contextmanager
def hold_work(out: Storage) -> Iterator[None]:
    """Lock the work on a local dataset. A dataset on object storage is not locked.

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
    """Delete the work of a run that was killed after the dataset was complete."""
    if out.path is not None:
        shutil.rmtree(partial_folder(out.path), ignore_errors=True)
    else:
        for name in [PLAN, *out.names("done/")]:
            out.delete(name)


def partial_folder(out: Path) -> Path:
    """Return the folder for work on an unfinished local dataset."""
    return out.parent / f".{out.name}.partial"


def publish(
    store: ShardStore,
    out: Storage,
    format: str,
    shards: Sequence[Shard],
    rejections: Sequence[Rejection],
    *,
    check_ids: bool,
) -> None:
    """Make the finished dataset from shards, then delete the work.

    Args:
        store: the shards, in `partial_folder(out.path)` or for a URL in `out` itself.
        format: one of `FORMATS`.
        shards: all units in order.
        rejections: of the corpus and of the shards.
        check_ids: warn of duplicate ids; for a stream, whose ids were not listed.
    Raises:
        RuntimeError: a worker reported a unit as complete, but its shard is missing.
        ValueError: the shards have no rows.
    """
    n_units = store.layout["units"]
    missing = sorted(set(range(n_units)) - {shard.index for shard in shards})
    if missing:
        raise RuntimeError(
            f"{len(missing)} of {n_units} units are not in {store.storage.url}, the first of "
            f"them {missing[0]}: all machines must share this storage, and only one run at a time "
            "may write there; run the same command again to make the missing units"
        )
    if not any(shard.splits for shard in shards):
        first = "; ".join(f"{r.source}: {r.reason}" for r in rejections[:3])
        name = store.provenance.corpus
        raise ValueError(f"{name} has no usable audio: {len(rejections)} rejected ({first})")
    files = [shard.file_name(split) for shard in shards for split in shard.splits]
    if check_ids:
        counts: Counter[str] = Counter()
        for file in files:
            counts.update(read_shard(store.storage, file, ["id"])["id"].to_pylist())
        doubles = [id for id, n in counts.items() if n > 1]
        if doubles:
            warnings.warn(
                f"{len(doubles)} ids of the stream belong to several utterances, for example "
                f"{doubles[0]!r}; all rows are kept, with duplicate ids",
                stacklevel=3,
            )
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
        for file in files:  # links, so that a kill loses nothing
            os.link(folder / file, building / file)
    (building / PROVENANCE).write_bytes(provenance)
    (building / REJECTIONS).write_bytes(lines)
    for path in building.rglob("*"):
        flush(path)
    out.path.parent.mkdir(parents=True, exist_ok=True)
    os.rename(building, out.path)
    flush(out.path.parent)
    shutil.rmtree(folder)


def _write_arrow(store: ShardStore, shards: Sequence[Shard], building: Path) -> None:
    from datasets import Dataset, DatasetDict, DatasetInfo, NamedSplit
    from datasets.table import MemoryMappedTable

    text = json.dumps(store.provenance.as_dict())
    parts = {}
    for split in dict.fromkeys(split for shard in shards for split in shard.splits):
        path = building.parent / f"split-{split}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, store.schema) as writer:
            for shard in shards:
                if split in shard.splits:
                    table = read_shard(store.storage, shard.file_name(split)).cast(store.schema)
                    writer.write_table(table.combine_chunks())
        parts[split] = Dataset(
            MemoryMappedTable.from_file(str(path)),
            info=DatasetInfo(description=text, features=store.features),
            split=NamedSplit(split),
            fingerprint=hashlib.sha256(f"{split} {text}".encode()).hexdigest()[:16],
        )
    with quiet_datasets():
        DatasetDict(parts).save_to_disk(str(building))
