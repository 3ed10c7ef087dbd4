"""The shards of a tokenizing run: Parquet files that any worker writes, in any order.

`ShardStore` keeps them in a folder, which may be on object storage:

    plan.json                      what the rows are made of, and how the corpus is cut into units
    data/train-000000012.parquet   rows of unit 12, those of one split
    done/000000012.json            unit 12 is whole: its rows, and what was left out of it

A unit's marker is written after its files, each file whole or not at all. So whoever dies leaves
whole units behind and nothing else that counts, and a unit that is made twice is made equal.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokgen.corpus.entries import Rejection
from tokgen.storage import Storage
from tokgen.tokens.dataset import Provenance, read_shard, side_column, token_features

if TYPE_CHECKING:
    from datasets import Features

PLAN = "plan.json"
READS_AT_ONCE = 16  # of small files on object storage


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
    """A unit of the corpus, done.

    Attributes:
        index: of the unit.
        splits: split -> rows, one file each.
        n_entries: of the corpus, rejected ones too.
        audio_seconds: of the rows.
        rejections: entries that gave no row.
    """

    index: int
    splits: dict[str, int]
    n_entries: int
    audio_seconds: float
    rejections: list[Rejection] = field(default_factory=list)

    @property
    def n_rows(self) -> int:
        return sum(self.splits.values())

    @property
    def marker(self) -> str:
        return f"done/{self.index:09d}.json"

    def file_name(self, split: str) -> str:
        return f"data/{split}-{self.index:09d}.parquet"

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Shard:
        fields = json.loads(text)
        fields["rejections"] = [Rejection(**r) for r in fields["rejections"]]
        return cls(**fields)


class ShardStore:
    """The shards of one run.

    Args:
        storage: the folder; workers elsewhere get the store by pickling.
        provenance: of the rows.
        layout: what cuts the corpus into units; shards of another layout are not used.
    """

    def __init__(self, storage: Storage, provenance: Provenance, layout: Mapping[str, Any]) -> None:
        self.storage, self.provenance, self.layout = storage, provenance, dict(layout)
        self.features: Features = token_features(
            provenance.n_codebooks, provenance.conditioning_sizes, provenance.side_names
        )
        self.schema: pa.Schema = self.features.arrow_schema

    def recover(self) -> bool:
        """Keep the shards of an earlier run; delete them and say False if they were made
        otherwise."""
        names = self.storage.names()
        same = PLAN in names and self._is_ours(self.storage.read(PLAN))
        kept = {PLAN, "lock"}
        if same:
            shards = list(self.done().values())
            with ThreadPoolExecutor(1 if self.storage.is_local else READS_AT_ONCE) as pool:
                for shard, whole in zip(shards, pool.map(self._is_whole, shards), strict=True):
                    if whole:
                        kept |= {shard.marker, *(shard.file_name(split) for split in shard.splits)}
        for name in set(names) - kept:
            if self.storage.is_local or name.startswith(("data/", "done/")):
                self.storage.delete(name)
        if not same:
            plan = {"layout": self.layout, "provenance": self.provenance.as_dict()}
            self.storage.write(PLAN, json.dumps(plan, indent=2).encode() + b"\n")
        return same or not [name for name in names if name.startswith("done/")]

    def _is_ours(self, text: bytes) -> bool:
        try:
            plan = json.loads(text)
            other = Provenance.from_json(json.dumps(plan["provenance"]), PLAN)
            return plan["layout"] == self.layout and self.provenance.makes_equal_rows(other)
        except (ValueError, KeyError, TypeError):  # of another version of tokgen, or damaged
            return False

    def _is_whole(self, shard: Shard) -> bool:
        """Whether its files can be read; a damaged one is made again."""
        try:
            for split, n_rows in shard.splits.items():
                with self.storage.open(shard.file_name(split)) as file:
                    if pq.read_metadata(file).num_rows != n_rows:
                        return False
        except (pa.ArrowException, OSError):
            return False
        return True

    def done(self) -> dict[int, Shard]:
        """The shards that are whole, by unit, in order."""
        found, files = {}, set(self.storage.names("data/"))
        markers = self.storage.names("done/")
        with ThreadPoolExecutor(1 if self.storage.is_local else READS_AT_ONCE) as pool:
            for text in pool.map(self.storage.read, markers):
                try:
                    shard = Shard.from_json(text)
                except (ValueError, TypeError, KeyError):  # damaged: made again
                    continue
                if all(shard.file_name(split) in files for split in shard.splits):
                    found[shard.index] = shard
        return dict(sorted(found.items()))

    def n_done(self) -> int:
        """How many units have their marker."""
        return len(self.storage.names("done/"))

    def write(
        self,
        index: int,
        rows: Sequence[Row],
        rejections: Sequence[Rejection],
        *,
        n_entries: int,
        audio_seconds: float,
    ) -> Shard:
        """Store a unit: its rows in corpus order, and what gave none."""
        by_split: dict[str, list[Row]] = {}
        for row in rows:
            by_split.setdefault(row.split, []).append(row)
        counts = {split: len(part) for split, part in by_split.items()}
        shard = Shard(index, counts, n_entries, audio_seconds, list(rejections))
        for split, part in by_split.items():
            self.storage.write(shard.file_name(split), self._parquet(part))
        self.storage.write(shard.marker, shard.to_json())
        return shard

    def _parquet(self, rows: Sequence[Row]) -> bytes:
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
        table = pa.table(columns).cast(self.schema.remove_metadata())
        file = io.BytesIO()
        pq.write_table(
            table.replace_schema_metadata(self.schema.metadata),
            file,
            compression="zstd",
            use_dictionary=False,  # codes and coefficients hardly repeat
            write_statistics=False,
        )
        return file.getvalue()

    def batches(self, split: str, shards: Sequence[Shard]) -> Iterator[pa.RecordBatch]:
        """The rows of a split, shard after shard."""
        for shard in shards:
            if split in shard.splits:
                table = read_shard(self.storage, shard.file_name(split)).cast(self.schema)
                yield from table.combine_chunks().to_batches()

    def ids(self, shard: Shard) -> Iterator[str]:
        """Of its rows."""
        for split in shard.splits:
            yield from read_shard(self.storage, shard.file_name(split), ["id"])["id"].to_pylist()


def _matrices(arrays: Sequence[np.ndarray]) -> pa.ListArray:
    """[T_i, C] each -> one list array of fixed-size lists."""
    width = arrays[0].shape[1]
    offsets = np.cumsum([0, *(len(a) for a in arrays)], dtype=np.int32)
    values = pa.array(np.concatenate([a.reshape(-1) for a in arrays]))
    return pa.ListArray.from_arrays(offsets, pa.FixedSizeListArray.from_arrays(values, width))
