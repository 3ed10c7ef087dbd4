"""Make the finished token dataset from shards, in one of two formats.

    parquet   the shards, data/<split>-<index>-of-<number>.parquet, and a dataset card (README.md)
    arrow     a `datasets.DatasetDict` on this machine, memory-mapped when it is opened

A local dataset appears complete, by one rename. A dataset on object storage is complete as soon as
it has provenance.json.

In a local folder, the shards of each split are numbered without gaps, by hard links. On object
storage, where a rename is a copy, they keep the index of their unit and the number of units: a
split has gaps if units have no row of it. `datasets.load_dataset` opens both.
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
from tokgen.disk import flush
from tokgen.runs.locks import LOCK, lock_folder
from tokgen.runs.progress import quiet_libraries
from tokgen.storage import Storage
from tokgen.tokens.card import CARD, write_card
from tokgen.tokens.provenance import PROVENANCE
from tokgen.tokens.rates import DepthTotals
from tokgen.tokens.saved import CORPUS, PLAN, REJECTIONS, read_shard
from tokgen.tokens.shards import BEGUN, Shard, ShardStore, shard_name

__all__ = ["FORMATS", "clear_work", "hold_work", "partial_folder", "publish"]

FORMATS = ("parquet", "arrow")


@contextmanager
def hold_work(out: Storage, *, alone: bool = True) -> Iterator[None]:
    """Lock the work on a local dataset. A dataset on object storage is not locked.

    After an error, only what a later run needs to go on is kept.

    Args:
        alone: no other process of this run writes there.
    Raises:
        BlockingIOError: another process works on the same dataset.
        OSError: the disk is full, or the work was deleted; the message names the folder.
    """
    if out.path is None:
        yield
        return
    folder = partial_folder(out.path)
    with lock_folder(folder):
        try:
            yield
        except BaseException:
            if alone:
                _tidy(folder)
            raise


def _tidy(folder: Path) -> None:
    """Delete all but complete units, and also those if there are none."""
    keep = {LOCK}
    if (folder / PLAN).exists() and any(folder.glob("done/*.json")):
        keep |= {PLAN, CORPUS, "done", "data", BEGUN.rstrip("/")}
    for path in list(folder.iterdir()) if folder.is_dir() else []:
        if path.name not in keep:
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    for path in folder.rglob("*.partial"):
        path.unlink(missing_ok=True)


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
        FileNotFoundError: a worker reported a unit as complete, but its shard is missing.
        ValueError: the shards have no rows.
    """
    n_units = store.layout["units"]
    missing = sorted(set(range(n_units)) - {shard.index for shard in shards})
    if missing:
        raise FileNotFoundError(
            f"{len(missing)} of {n_units} units are not in {store.storage.url}, the first of "
            f"them {missing[0]}: somebody deleted them, or the machines do not share this storage; "
            "run the same command again to make the missing units"
        )
    if not any(shard.splits for shard in shards):
        first = "; ".join(map(str, rejections[:3]))
        name = store.provenance.corpus
        clear_work(out)
        raise ValueError(f"{name} has no usable audio: {len(rejections)} rejected ({first})")
    files: dict[str, list[str]] = {}
    for shard in shards:
        for split in shard.splits:
            files.setdefault(split, []).append(store.file_name(shard, split))
    if check_ids:
        counts: Counter[str] = Counter()
        for file in (file for names in files.values() for file in names):
            counts.update(read_shard(store.storage, file, ["id"])["id"].to_pylist())
        doubles = [id for id, n in counts.items() if n > 1]
        if doubles:
            warnings.warn(
                f"{len(doubles)} ids of the stream belong to several utterances, for example "
                f"{doubles[0]!r}; all rows are kept, with duplicate ids",
                stacklevel=3,
            )
    provenance = store.provenance.to_json(indent=2).encode() + b"\n"
    sizes = {
        split: (
            sum(s.splits.get(split, 0) for s in shards),
            sum(s.samples.get(split, 0) for s in shards) / store.provenance.sample_rate,
        )
        for split in files
    }
    depth = DepthTotals.sum(s.depth for s in shards if s.depth) if store.variable else None
    card = write_card(
        store.provenance,
        sizes,
        n_rejected=len(rejections),
        packed=store.packed,
        depth=depth,
    ).encode()
    lines = b"".join(_json_line(r) for r in rejections)
    corpus = store.storage.read(CORPUS) if store.storage.exists(CORPUS) else None
    if out.path is None:
        out.write(CARD, card)
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
        for split, names in files.items():  # links, so that a kill loses nothing
            for i, name in enumerate(names):
                os.link(folder / name, building / shard_name(split, i, len(names)))
        (building / CARD).write_bytes(card)
    (building / PROVENANCE).write_bytes(provenance)
    (building / REJECTIONS).write_bytes(lines)
    if corpus is not None:
        (building / CORPUS).write_bytes(corpus)
    for path in building.rglob("*"):
        flush(path)
    out.path.parent.mkdir(parents=True, exist_ok=True)
    os.rename(building, out.path)
    flush(out.path.parent)
    shutil.rmtree(folder)


def _json_line(rejection: Rejection) -> bytes:
    """Return JSON that every parser reads: names may have bytes that are not UTF-8."""
    fields = {
        name: text.encode("utf-8", "backslashreplace").decode()
        for name, text in asdict(rejection).items()
    }
    return json.dumps(fields).encode() + b"\n"


def _write_arrow(store: ShardStore, shards: Sequence[Shard], building: Path) -> None:
    from datasets import Dataset, DatasetDict, DatasetInfo, NamedSplit
    from datasets.table import MemoryMappedTable

    about, parts = store.provenance.to_json(), {}
    for split in dict.fromkeys(split for shard in shards for split in shard.splits):
        path = building.parent / f"split-{split}.arrow"
        with pa.OSFile(str(path), "wb") as file, pa.ipc.new_stream(file, store.schema) as writer:
            for shard in shards:
                if split in shard.splits:
                    table = read_shard(store.storage, store.file_name(shard, split))
                    writer.write_table(table.cast(store.schema).combine_chunks())
        parts[split] = Dataset(
            MemoryMappedTable.from_file(str(path)),
            info=DatasetInfo(features=store.features),
            split=NamedSplit(split),
            fingerprint=hashlib.sha256(f"{split} {about}".encode()).hexdigest()[:16],
        )
    with quiet_libraries():
        DatasetDict(parts).save_to_disk(str(building))
