"""The bitrate of tokens whose frames differ in depth."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import torch

from tokgen.codec.depth import stream_bits
from tokgen.codec.packing import unpack_depth
from tokgen.codec.spec import CodecSpec
from tokgen.storage import Storage
from tokgen.tokens.columns import depths_of
from tokgen.tokens.provenance import Provenance
from tokgen.tokens.saved import open_arrow, read_shard

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["DepthTotals", "depths_in", "depths_of_splits"]

_ROWS_AT_ONCE = 1000


@dataclass(frozen=True)
class DepthTotals:
    """Sums over utterances of a variable bitrate.

    Attributes:
        n_frames: frames.
        n_codes: codes up to the depth of each frame.
        bits: bits of these codes, without entropy coding, and of the depth, as in `stream_bits`.
    """

    n_frames: int
    n_codes: int
    bits: float

    @classmethod
    def of(cls, depths: Iterable[np.ndarray], spec: CodecSpec) -> DepthTotals:
        """Sum over the depth [T] of each utterance."""
        n_frames, n_codes, bits = 0, 0, []
        for depth in depths:
            n_frames += len(depth)
            n_codes += int(depth.sum())
            levels = torch.from_numpy(depth.astype(np.int64))
            bits.append(stream_bits(len(depth), spec.n_codebooks, spec, levels))
        return cls(n_frames, n_codes, math.fsum(bits))

    @classmethod
    def sum(cls, totals: Iterable[DepthTotals]) -> DepthTotals:
        """Add totals."""
        each = list(totals)
        return cls(
            sum(t.n_frames for t in each),
            sum(t.n_codes for t in each),
            math.fsum(t.bits for t in each),
        )

    @property
    def mean_depth(self) -> float:
        """Levels per frame."""
        return self.n_codes / self.n_frames

    def kbps(self, spec: CodecSpec) -> float:
        """Return the mean bitrate over all frames, with the bits of the depth."""
        return self.bits * spec.frame_rate / self.n_frames / 1000


def depths_of_splits(splits: Iterable[Dataset]) -> Iterator[np.ndarray]:
    """Yield the depth [T] of all rows of open splits; nothing if frames do not differ in depth."""
    for part in splits:
        for first in range(0, len(part), _ROWS_AT_ONCE):
            some = part.select(range(first, min(first + _ROWS_AT_ONCE, len(part))))
            for depth in depths_of(some) or []:
                yield depth.numpy()


def depths_in(storage: Storage, provenance: Provenance) -> Iterator[np.ndarray]:
    """Yield the depth [T] of all rows of a finished dataset of variable bitrate."""
    if storage.exists("dataset_dict.json"):
        parts = open_arrow(Path(storage.url), follow_links=False).values()
        yield from depths_of_splits(parts)
        return
    for name in storage.names("data/"):
        table = read_shard(storage, name, ["codes", "n_samples"])
        packed = pa.types.is_binary(table.schema.field("codes").type)
        for codes, n_samples in zip(table["codes"], table["n_samples"].to_pylist(), strict=True):
            if packed:
                n_frames = provenance.spec.n_frames(n_samples)
                yield unpack_depth(codes.as_py(), n_frames, provenance.n_codebooks)
            else:
                yield codes.values.value_lengths().to_numpy()
