"""The shards of a tokenizing run: Parquet files that workers write in any order.

`ShardStore` keeps them in a folder, which may be on object storage:

    plan.json                            provenance of the rows, and how the corpus is divided
    data/train-00003-of-00012.parquet    rows of unit 3 (of 12) in one split
    done/000000003.json                  marker: unit 3 is complete; its rows and rejections

A unit's marker is written after its files, and each file is written completely or not at all. So
a worker that dies leaves complete units and files that are ignored. Repeating a unit writes the
same files. The numbers of a split have gaps if units have no row of it.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tokgen.codec.packing import pack_codes, pack_variable
from tokgen.codec.spec import DEPTH
from tokgen.corpus.entries import Rejection
from tokgen.runs.locks import LOCK
from tokgen.storage import Storage
from tokgen.tokens.columns import live_codes, matrices, ragged, token_features
from tokgen.tokens.provenance import METADATA_KEY, Provenance, add_provenance, side_column
from tokgen.tokens.rates import DepthTotals
from tokgen.tokens.saved import CORPUS, PLAN

if TYPE_CHECKING:
    from datasets import Features

__all__ = ["BEGUN", "READS_AT_ONCE", "Shard", "ShardStore", "TokenRow", "shard_name"]

BEGUN = "begun/"  # folder of markers: a unit that a process without workers has begun
READS_AT_ONCE = 16  # threads that read small files on object storage

T = TypeVar("T")


@dataclass(frozen=True)
class TokenRow:
    """One utterance of a token or latent dataset."""

    id: str
    split: str
    values: np.ndarray  # codes uint16 [T, K], or latents float16 [T, D]
    n_samples: int
    text: str | None
    speaker: str | None
    conditioning: np.ndarray | None  # float16 [T, C]
    side: Mapping[str, np.ndarray] = field(default_factory=dict)  # float32 [S] each

    @property
    def depth(self) -> np.ndarray:
        """Levels of each frame of a variable bitrate, int64 [T]."""
        return self.side[DEPTH].astype(np.int64)


@dataclass(frozen=True)
class Shard:
    """A complete unit of the corpus.

    Attributes:
        index: of the unit.
        splits: number of rows by split; each split has a file.
        n_entries: number of the corpus' entries, including rejected ones.
        samples: length of the rows' audio by split.
        audio_seconds: duration of the rows' audio.
        rejections: entries that have no row.
        depth: of the rows, if they have a variable bitrate.
    """

    index: int
    splits: dict[str, int]
    n_entries: int
    samples: dict[str, int]
    audio_seconds: float
    rejections: list[Rejection] = field(default_factory=list)
    depth: DepthTotals | None = None

    @property
    def n_rows(self) -> int:
        return sum(self.splits.values())

    @property
    def marker(self) -> str:
        return f"done/{self.index:09d}.json"

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()

    @classmethod
    def from_json(cls, text: bytes) -> Shard:
        fields = json.loads(text)
        fields["rejections"] = [Rejection(**r) for r in fields["rejections"]]
        if fields.get("depth") is not None:
            fields["depth"] = DepthTotals(**fields["depth"])
        return cls(**fields)


def shard_name(split: str, index: int, total: int) -> str:
    """Return the name of a Parquet file, as the Hugging Face hub names them; they sort by index."""
    width = max(5, len(str(total)))
    return f"data/{split}-{index:0{width}d}-of-{total:0{width}d}.parquet"


class ShardStore:
    """The shards of one run. Picklable, so that workers on other machines can write shards.

    Args:
        storage: folder of the shards.
        layout: settings that divide the corpus into units, and "codes": "packed" to store codes as
            packed bytes. Shards of another layout are not used.
    """

    def __init__(self, storage: Storage, provenance: Provenance, layout: Mapping[str, Any]) -> None:
        self.storage, self.provenance, self.layout = storage, provenance, dict(layout)
        self.packed = self.layout.get("codes") == "packed"
        sizes = provenance.width, provenance.conditioning_sizes, provenance.side_names
        self.variable = provenance.rate is not None
        plain = token_features(
            *sizes, column=provenance.column, packed=self.packed, variable=self.variable
        )
        self.features: Features = add_provenance(plain, provenance)
        schema = self.features.arrow_schema
        self.schema: pa.Schema = schema.with_metadata(
            {**(schema.metadata or {}), METADATA_KEY: provenance.to_json().encode()}
        )

    def file_name(self, shard: Shard, split: str) -> str:
        return shard_name(split, shard.index, self.layout["units"])

    def recover(self) -> list[str]:
        """Keep the complete shards of an earlier run, and delete everything else.

        Returns:
            what differs from the earlier run, if its shards were deleted.
        """
        names = self.storage.names()
        found = self._differences(self.storage.read(PLAN) if PLAN in names else b"")
        same = not found
        kept = {PLAN, CORPUS, LOCK}
        if self.storage.path is not None:
            for file in self.storage.path.rglob("*.partial"):  # of a writer that was killed
                file.unlink(missing_ok=True)
        if same:
            kept |= {name for name in names if name.startswith(BEGUN)}
            shards = list(self.done().values())
            for shard, readable in zip(shards, self._map(self._is_readable, shards), strict=True):
                if readable:
                    kept |= {
                        shard.marker,
                        *(self.file_name(shard, split) for split in shard.splits),
                    }
        for name in set(names) - kept:
            if self.storage.is_local or name.startswith(("data/", "done/")):
                self.storage.delete(name)
        if not same:
            plan = {"layout": self.layout, "provenance": self.provenance.as_dict()}
            self.storage.write(PLAN, json.dumps(plan, indent=2).encode() + b"\n")
        return found if any(name.startswith("done/") for name in names) else []

    def _differences(self, text: bytes) -> list[str]:
        try:
            plan = json.loads(text)
            layout = {**plan["layout"]}
            other = Provenance.from_json(json.dumps(plan["provenance"]), PLAN)
        except (ValueError, KeyError, TypeError, RecursionError):
            return ["its plan, which is missing, damaged or of another version"]
        found = other.differences(self.provenance)
        names = [n for n in {**layout, **self.layout} if layout.get(n) != self.layout.get(n)]
        if names == ["units"] and found:  # follows from the corpus
            return found
        return found + [f"shard {n}: {layout.get(n)} → {self.layout.get(n)}" for n in names]

    def _is_readable(self, shard: Shard) -> bool:
        try:
            for split, n_rows in shard.splits.items():
                with self.storage.open(self.file_name(shard, split)) as file:
                    if pq.read_metadata(file).num_rows != n_rows:
                        return False
        except (pa.ArrowException, OSError):
            return False
        return True

    def done(self) -> dict[int, Shard]:
        """Return the complete shards by unit, in order."""
        found, files = {}, set(self.storage.names("data/"))
        for text in self._map(self.storage.read, self.storage.names("done/")):
            try:
                shard = Shard.from_json(text)
            except (ValueError, TypeError, KeyError):  # damaged, so the unit is repeated
                continue
            if all(self.file_name(shard, split) in files for split in shard.splits):
                found[shard.index] = shard
        return dict(sorted(found.items()))

    def _map(self, function: Callable[[Any], T], items: Sequence[Any]) -> Iterator[T]:
        with ThreadPoolExecutor(1 if self.storage.is_local else READS_AT_ONCE) as pool:
            yield from pool.map(function, items)

    def write(self, index: int, rows: Sequence[TokenRow], rejections: Sequence[Rejection]) -> Shard:
        """Store a unit; `rows` are in the corpus' order."""
        by_split: dict[str, list[TokenRow]] = {}
        for row in rows:
            by_split.setdefault(row.split, []).append(row)
        shard = Shard(
            index,
            splits={split: len(part) for split, part in by_split.items()},
            n_entries=len(rows) + len(rejections),
            samples={split: sum(r.n_samples for r in part) for split, part in by_split.items()},
            audio_seconds=sum(row.n_samples for row in rows) / self.provenance.sample_rate,
            rejections=list(rejections),
            depth=self._totals(rows),
        )
        for split, part in by_split.items():
            self.storage.write(self.file_name(shard, split), self._parquet(part))
        self.storage.write(shard.marker, shard.to_json())
        return shard

    def _totals(self, rows: Sequence[TokenRow]) -> DepthTotals | None:
        if not self.variable:
            return None
        return DepthTotals.of([row.depth for row in rows], self.provenance.spec)

    def _values(self, rows: Sequence[TokenRow]) -> pa.Array:
        k, size = self.provenance.n_codebooks, self.provenance.codebook_size
        if not self.variable:
            if not self.packed:
                return matrices([row.values for row in rows])
            return pa.array([pack_codes(row.values, size) for row in rows], pa.binary())
        depths = [row.depth for row in rows]
        live = [live_codes(row.values, depth) for row, depth in zip(rows, depths, strict=True)]
        if not self.packed:
            return ragged(live, depths)
        packed = [pack_variable(c, d, k, size) for c, d in zip(live, depths, strict=True)]
        return pa.array(packed, pa.binary())

    def _parquet(self, rows: Sequence[TokenRow]) -> bytes:
        columns = {
            "id": pa.array([row.id for row in rows], pa.string()),
            self.provenance.column: self._values(rows),
            "n_samples": pa.array([row.n_samples for row in rows], pa.int64()),
            "text": pa.array([row.text for row in rows], pa.string()),
            "speaker": pa.array([row.speaker for row in rows], pa.string()),
        }
        for name in self.provenance.conditioning_sizes:
            columns[name] = matrices([r.conditioning for r in rows if r.conditioning is not None])
        for name in self.provenance.side_names:
            values = [row.side[name] for row in rows]
            columns[side_column(name)] = pa.array(values, pa.list_(pa.float32()))
        table = pa.table(columns).cast(self.schema.remove_metadata())
        file = io.BytesIO()
        pq.write_table(
            table.replace_schema_metadata(self.schema.metadata),
            file,
            compression="zstd",
            use_dictionary=False,  # codes and features rarely repeat
            write_statistics=False,
        )
        return file.getvalue()
