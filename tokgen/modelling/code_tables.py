"""Tables of code frequencies: the simplest entropy models, for comparison."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

__all__ = ["STRENGTHS", "PreviousFrameTable", "StaticTable"]

STRENGTHS = (8, 32, 128, 512, 2048, 8192)
_PRIOR = 0.5  # occurrences added to each code


class StaticTable:
    """Frequencies of the codes of each level.

    Args:
        clips: codes int64 [K, T] of the clips to count.
        codebook_size: codes V per level.
    Attributes:
        shares: float64 [K, V], which sum to 1 in each level.
    """

    def __init__(self, clips: Sequence[Tensor], codebook_size: int) -> None:
        every = np.concatenate([clip.numpy() for clip in clips], -1)
        counts = np.stack([np.bincount(row, minlength=codebook_size) for row in every]) + _PRIOR
        self.shares: NDArray[np.float64] = counts / counts.sum(-1, keepdims=True)

    def bits(self, codes: Tensor) -> NDArray[np.float64]:
        """Bits [K, T] of codes int64 [K, T]."""
        return -np.log2(np.take_along_axis(self.shares, codes.numpy(), -1))


class PreviousFrameTable:
    """Frequencies of the codes of each level after the code of the frame before.

    The share of a code is (n(previous, code) + s * share) / (n(previous) + s), with the share of
    the static table and a strength s per level, one of `STRENGTHS`.

    Args:
        clips: codes int64 [K, T] of the clips to count.
        codebook_size: codes V per level.
        held_out: clips whose bits choose the strengths.
    """

    def __init__(
        self, clips: Sequence[Tensor], codebook_size: int, held_out: Sequence[Tensor]
    ) -> None:
        self._static = StaticTable(clips, codebook_size)
        levels, size = self._static.shares.shape
        # Pairs that occurred, as sorted keys with their counts: V * V may not fit in memory.
        self._pairs = []
        for level in range(levels):
            keys = [clip[level, :-1].numpy() * size + clip[level, 1:].numpy() for clip in clips]
            pairs, n = np.unique(np.concatenate(keys), return_counts=True)
            before = np.bincount(pairs // size, weights=n, minlength=size)
            self._pairs.append((pairs, n, before))
        self.strengths = np.full(levels, STRENGTHS[-1])
        tried = np.array(
            [
                sum(self._bits(clip, np.full(levels, s)).sum(-1) for clip in held_out)
                for s in STRENGTHS
            ]
        )
        if held_out:
            self.strengths = np.array(STRENGTHS)[tried.argmin(0)]

    def bits(self, codes: Tensor) -> NDArray[np.float64]:
        """Bits [K, T] of codes int64 [K, T]."""
        return self._bits(codes, self.strengths)

    def _bits(self, codes: Tensor, strengths: NDArray[np.int64]) -> NDArray[np.float64]:
        size, bits = self._static.shares.shape[1], self._static.bits(codes)
        for level, ((pairs, n, before), row) in enumerate(
            zip(self._pairs, codes.numpy(), strict=True)
        ):
            previous, keys = row[:-1], row[:-1] * size + row[1:]
            at = np.searchsorted(pairs, keys).clip(max=max(0, len(pairs) - 1))
            seen = np.where(pairs[at] == keys, n[at], 0) if len(pairs) else np.zeros(len(keys))
            s, share = strengths[level], self._static.shares[level, row[1:]]
            bits[level, 1:] = -np.log2((seen + s * share) / (before[previous] + s))
        return bits
