"""Resumable storage of a tokenizing run: shards that appear whole or not at all.

`ShardStore` lives in a hidden folder beside the dataset to be:

    plan.json                            what the rows are made of; other shards are not used
    shard-000000000-000000256.arrow      entries [0, 256) of the corpus, what was rejected too
    dataset/                             the dataset as it is put together, renamed when done

A shard is written under another name, flushed to the disk and renamed. So a run that is killed
leaves a prefix of the corpus behind, and the next one goes on after it.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from tokgen.corpus import Rejection
from tokgen.token_dataset import (
    PROVENANCE,
    REJECTIONS,
    Provenance,
    side_column,
    token_features,
)

if TYPE_CHECKING:
    from datasets import Features

_SHARD = re.compile(r"shard-(\d{9})-(\d{9})\.arrow")
_ABOUT = b"tokgen"


@dataclass(frozen=True)
class Row:
    """One utterance of a token dataset, and its split."""

    id: str
    split: str
    codes: np.ndarray  # uint16 [T, K]
    n_samples: int
    text: str | None
    speaker: str | None
    conditioning: np.ndarray | None  # float16 [T, C]
    side: Mapping[str, np.ndarray] = field(default_factory=dict)  # float32 [S] each


@dataclass(frozen=True)
class Shard:
    """Entries [start, stop) of the corpus, done.

    Attributes:
        splits: split and number of rows of each record batch of the file.
        rejections: entries that gave no row.
        audio_seconds: of the rows.
    """

    start: int
    stop: int
    splits: list[tuple[str, int]]
    audio_seconds: float
    rejections: list[Rejection] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        return sum(n for _, n in self.splits)

    @property
    def file_name(self) -> str:
        return f"shard-{self.start:09d}-{self.stop:09d}.arrow"

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Shard:
        fields = json.loads(text)
        fields["rejections"] = [Rejection(**r) for r in fields["rejections"]]
        fields["splits"] = [(split, n) for split, n in fields["splits"]]
        return cls(**fields)


class ShardStore:
    """The shards of one run; use `open_store`."""

    def __init__(self, folder: Path, provenance: Provenance) -> None:
        self.folder, self.provenance = folder, provenance
        self.features: Features = token_features(
            provenance.n_codebooks, provenance.conditioning_sizes, provenance.side_names
        )
        self.schema: pa.Schema = self.features.arrow_schema
        self.shards: list[Shard] = []

    @property
    def n_done(self) -> int:
        """Entries of the corpus that are done."""
        return self.shards[-1].stop if self.shards else 0

    def recover(self) -> bool:
        """Take over the shards of an earlier run; False if they were made otherwise."""
        plan = self.folder / "plan.json"
        same = plan.is_file() and self._is_ours(plan)
        found = {p for p in self.folder.iterdir() if _SHARD.fullmatch(p.name)}
        if same:
            self.shards = self._chain(found)
        keep = {shard.file_name for shard in self.shards} | {"plan.json", "lock"}
        for path in self.folder.iterdir():
            if path.name not in keep:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        if not same:
            with _replacing(plan) as temporary:
                temporary.write_text(json.dumps(self.provenance.as_dict(), indent=2) + "\n")
        return same or not found

    def _is_ours(self, plan: Path) -> bool:
        try:
            other = Provenance.from_json(plan.read_text(), str(plan))
        except ValueError:  # of another version of tokgen
            return False
        return self.provenance.makes_equal_rows(other)

    def _chain(self, found: set[Path]) -> list[Shard]:
        """Readable shards that follow each other from entry 0 on."""
        by_start = {int(path.name.split("-")[1]): path for path in sorted(found)}
        shards: list[Shard] = []
        while path := by_start.get(shards[-1].stop if shards else 0):
            try:
                with pa.OSFile(str(path)) as file:
                    metadata = pa.ipc.open_file(file).schema.metadata
            except pa.ArrowInvalid:  # damaged on the disk: made again
                break
            shards.append(Shard.from_json(metadata[_ABOUT]))
        return shards

    def append(
        self, stop: int, rows: Sequence[Row], rejections: Sequence[Rejection], seconds: float
    ) -> None:
        """Store entries [n_done, stop): their rows in corpus order, and what gave none."""
        by_split: dict[str, list[Row]] = {}
        for row in rows:
            by_split.setdefault(row.split, []).append(row)
        counts = [(split, len(part)) for split, part in by_split.items()]
        shard = Shard(self.n_done, stop, counts, seconds, list(rejections))
        schema = self.schema.with_metadata({_ABOUT: shard.to_json()})
        with (
            _replacing(self.folder / shard.file_name) as temporary,
            pa.OSFile(str(temporary), "wb") as file,
            pa.ipc.new_file(file, schema) as writer,
        ):
            for part in by_split.values():
                writer.write_batch(self._record_batch(part))
        self.shards.append(shard)

    def _record_batch(self, rows: Sequence[Row]) -> pa.RecordBatch:
        columns = {
            "id": pa.array([row.id for row in rows], pa.string()),
            "codes": _matrices([row.codes for row in rows]),
            "n_samples": pa.array([row.n_samples for row in rows], pa.int64()),
            "text": pa.array([row.text for row in rows], pa.string()),
            "speaker": pa.array([row.speaker for row in rows], pa.string()),
        }
        for name in self.provenance.conditioning_sizes:
            columns[name] = _matrices([r.conditioning for r in rows if r.conditioning is not None])
        for name in self.provenance.side_names:
            values = [row.side[name] for row in rows]
            columns[side_column(name)] = pa.array(values, pa.list_(pa.float32()))
        return pa.record_batch(columns).cast(self.schema.remove_metadata())

    def publish(self, out: Path, rejections: Sequence[Rejection]) -> None:
        """Put the dataset together and rename it to `out`, then clear up."""
        from datasets import Dataset, DatasetDict, DatasetInfo, NamedSplit
        from datasets.table import MemoryMappedTable

        building = self.folder / "dataset"
        text = json.dumps(self.provenance.as_dict())
        parts = {}
        for split in dict.fromkeys(split for shard in self.shards for split, _ in shard.splits):
            path = self.folder / f"split-{split}.arrow"
            with (
                pa.OSFile(str(path), "wb") as file,
                pa.ipc.new_stream(file, self.schema) as writer,
            ):
                for batch in self._batches(split):
                    writer.write_batch(batch)
            parts[split] = Dataset(
                MemoryMappedTable.from_file(str(path)),
                info=DatasetInfo(description=text, features=self.features),
                split=NamedSplit(split),
                fingerprint=hashlib.sha256(f"{split} {text}".encode()).hexdigest()[:16],
            )
        with _quiet_datasets():
            DatasetDict(parts).save_to_disk(str(building))
        pretty = json.dumps(self.provenance.as_dict(), indent=2) + "\n"
        (building / PROVENANCE).write_text(pretty)
        with (building / REJECTIONS).open("w") as lines:
            for rejection in rejections:
                lines.write(json.dumps(asdict(rejection)) + "\n")
        for path in building.rglob("*"):
            _flush(path)
        out.parent.mkdir(parents=True, exist_ok=True)
        os.rename(building, out)
        _flush(out.parent)
        shutil.rmtree(self.folder)

    def _batches(self, split: str) -> Iterator[pa.RecordBatch]:
        for shard in self.shards:
            wanted = [i for i, (name, _) in enumerate(shard.splits) if name == split]
            if wanted:
                with pa.memory_map(str(self.folder / shard.file_name)) as file:
                    reader = pa.ipc.open_file(file)
                    yield from (reader.get_batch(i) for i in wanted)


@contextmanager
def open_store(out: Path, provenance: Provenance) -> Iterator[ShardStore]:
    """The store for a dataset at `out`, held by one process at a time.

    Raises:
        ValueError: another process works on the same dataset.
    """
    from filelock import FileLock, Timeout

    folder = partial_folder(out)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / "lock", timeout=0)
    try:
        with lock:
            yield ShardStore(folder, provenance)
    except Timeout as error:
        raise ValueError(f"another process is tokenizing into {out}: wait for it") from error


def partial_folder(out: Path) -> Path:
    """Where work on the dataset `out` is kept until it is done."""
    return out.parent / f".{out.name}.partial"


def read_rejections(path: Path) -> list[Rejection]:
    """What `publish` wrote into rejections.jsonl."""
    return [Rejection(**json.loads(line)) for line in path.read_text().splitlines()]


def _matrices(arrays: Sequence[np.ndarray]) -> pa.ListArray:
    """[T_i, C] each -> one list array of fixed-size lists."""
    width = arrays[0].shape[1]
    offsets = np.cumsum([0, *(len(a) for a in arrays)], dtype=np.int32)
    values = pa.array(np.concatenate([a.reshape(-1) for a in arrays]))
    return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(values, width))


@contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary name; what is written there becomes `path` at once, or never."""
    temporary = path.with_name(f"tmp-{path.name}")
    yield temporary
    _flush(temporary)
    os.replace(temporary, path)
    _flush(path.parent)


def _flush(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


@contextmanager
def _quiet_datasets() -> Iterator[None]:
    """Without the progress bars of `datasets`, which say nothing of the run."""
    import datasets

    was_off = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        if not was_off:
            datasets.enable_progress_bars()
