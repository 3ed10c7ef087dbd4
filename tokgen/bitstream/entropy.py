"""Entropy models: integer counts of each next code, from which the range coder makes bits.

A model gives the coder one row of counts for each code, in the order of the stream: frame by
frame, and in a frame level by level, coarse first. The decoder computes the same rows from the
codes that it has. One different count breaks the rest of a block, so models compute in integers.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

__all__ = ["MAX_TOTAL_BITS", "EntropyModel"]

MAX_TOTAL_BITS = 24  # a row of counts sums to at most 2**24


@runtime_checkable
class EntropyModel(Protocol):
    """Counts of the next code, given the codes before it.

    A block is coded as:

        state = model.start(n_levels)
        for frame in codes.T:  # [k]
            for level in range(n_levels):
                counts = model.counts(state, level, frame[:level])  # [codebook_size]
                ...  # code frame[level]
            state = model.update(state, frame)

    Attributes:
        n_codebooks: levels K that the model knows.
        codebook_size: entries per level.
        model_hash: SHA-256 (hex) of all that decides the counts. Streams name it.
    """

    n_codebooks: int
    codebook_size: int
    model_hash: str

    def start(self, n_levels: int) -> Any:
        """Return the state before the first frame of a block.

        Args:
            n_levels: levels of each frame, 1..n_codebooks.
        """

    def counts(self, state: Any, level: int, frame: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the counts of a code, int64 [codebook_size].

        Each is at least 1, and their sum at most 2**24. The state does not change in a way that
        later counts would show: calling twice gives the same counts.

        Args:
            state: what `start` or `update` returned.
            level: level of the code.
            frame: codes of this frame so far, int64 [level].
        """

    def update(self, state: Any, frame: NDArray[np.int64]) -> Any:
        """Return the state after a frame, which may be `state` itself, changed.

        Args:
            frame: all codes of the frame, int64 [n_levels].
        """
