"""Entropy models: integer counts of each next code, from which the range coder makes bits.

A model gives the coder one row of counts for each code, in the order of the stream: frame by
frame, and in a frame level by level, coarse first. The decoder computes the same rows from the
codes that it has. One different count breaks the rest of a block, so models compute in integers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

__all__ = [
    "DEPTH_MODES",
    "MAX_TOTAL_BITS",
    "MODES",
    "AdaptiveCounts",
    "EntropyModel",
    "StaticCounts",
]

MAX_TOTAL_BITS = 24  # a row of counts sums to at most 2**24
MODES = ("packed", "static", "adaptive", "model")  # in the order of their numbers in files
DEPTH_MODES = MODES[:3]  # that code frames of variable depth; trained models need all levels
_SCALE = 1 << 22  # what the counts of a table sum to, about
_LEAST = 4  # counts that a table adds to each code, so that unseen ones can be coded


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
            frame: all codes of the frame, int64 [n_levels]; [depth] for frames of variable depth,
                which only `DEPTH_MODES` have.
        """


class StaticCounts:
    """A table of counts for each level. Counts do not depend on the codes before.

    Args:
        counts: int64 [K, S], each at least 1, and each row summing to at most 2**24.
    Raises:
        ValueError: other counts.
    """

    def __init__(self, counts: NDArray[np.int64]) -> None:
        rows = np.asarray(counts)
        if rows.ndim != 2 or rows.dtype.kind not in "iu" or 0 in rows.shape:
            raise ValueError(f"counts of shape {rows.shape} {rows.dtype}: expected integers [K, S]")
        self.table = rows.astype(np.int64)
        if self.table.min() < 1 or self.table.sum(1).max() > 1 << MAX_TOTAL_BITS:
            raise ValueError(
                f"counts from {self.table.min()}, summing to {self.table.sum(1).max()}: must be at "
                f"least 1, and sum to at most {1 << MAX_TOTAL_BITS}"
            )
        self.n_codebooks, self.codebook_size = self.table.shape
        self.model_hash = _hash("static", self.table.astype("<i4").tobytes(), *self.table.shape)

    @classmethod
    def fit(cls, codes: Iterable[NDArray[np.int64]], n_codebooks: int, codebook_size: int) -> Self:
        """Count the codes [K, T] of utterances.

        Raises:
            ValueError: no codes, another number of levels, or a code outside the codebook.
        """
        seen = np.zeros((n_codebooks, codebook_size), np.int64)
        for item in codes:
            if item.shape[0] != n_codebooks or item.min() < 0 or item.max() >= codebook_size:
                raise ValueError(
                    f"codes of shape {item.shape} from {item.min()} to {item.max()}: expected "
                    f"{n_codebooks} levels, and codes below {codebook_size}"
                )
            for level, row in enumerate(item):
                seen[level] += np.bincount(row, minlength=codebook_size)
        if not seen.any():
            raise ValueError("no codes to count: give at least one utterance")
        found = seen + _LEAST
        return cls(np.maximum(found * _SCALE // found.sum(1, keepdims=True), 1))

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote.

        Raises:
            ValueError: not a table of counts.
        """
        try:
            return cls(load_file(path)["counts"])
        except (KeyError, SafetensorError, ValueError) as error:
            raise ValueError(f"{path} is not a table of counts: {error}") from error

    def save(self, path: str | Path) -> None:
        """Write the table as a safetensors file with an int32 tensor `counts`."""
        save_file({"counts": self.table.astype(np.int32)}, path)

    def start(self, n_levels: int) -> None:
        return None

    def counts(self, state: None, level: int, frame: NDArray[np.int64]) -> NDArray[np.int64]:
        return self.table[level]

    def update(self, state: None, frame: NDArray[np.int64]) -> None:
        return None


class AdaptiveCounts:
    """Counts of the codes of a block so far, without weights.

    Each code starts with 2 and gains 1 whenever it occurs in its level. The code of the frame
    before gains C (2 r + 1) / (2 (n - r) + 127) more, rounded down, if r of n frames repeated the
    code before them and the counts sum to C; at most what is left to 2**24. If the depth varies,
    the frames of a level are those that have it.
    """

    _START = 2

    def __init__(self, n_codebooks: int, codebook_size: int) -> None:
        self.n_codebooks, self.codebook_size = n_codebooks, codebook_size
        self.model_hash = _hash("adaptive", b"", n_codebooks, codebook_size)

    def start(self, n_levels: int) -> _Seen:
        return _Seen(np.full((n_levels, self.codebook_size), self._START, np.int64))

    def counts(self, state: _Seen, level: int, frame: NDArray[np.int64]) -> NDArray[np.int64]:
        row, n_frames = state.rows[level], int(state.n_frames[level])
        if not n_frames:
            return row
        total = self._START * self.codebook_size + n_frames
        repeats = int(state.repeats[level])
        more = total * (2 * repeats + 1) // (2 * (n_frames - repeats) + 127)
        row = row.copy()
        row[state.before[level]] += min(more, (1 << MAX_TOTAL_BITS) - total)
        return row

    def update(self, state: _Seen, frame: NDArray[np.int64]) -> _Seen:
        depth = len(frame)
        state.rows[np.arange(depth), frame] += 1
        state.repeats[:depth] += frame == state.before[:depth]
        state.before[:depth] = frame
        state.n_frames[:depth] += 1
        return state


class _Seen:
    """The codes of a block so far.

    Attributes:
        rows: counts int64 [k, S].
        n_frames: frames so far that have a level, int64 [k].
        before: codes of the last such frame [k]; -1 at first.
        repeats: such frames that had the code of the one before them, int64 [k].
    """

    def __init__(self, rows: NDArray[np.int64]) -> None:
        self.rows = rows
        self.n_frames = np.zeros(len(rows), np.int64)
        self.before = np.full(len(rows), -1, np.int64)
        self.repeats = np.zeros(len(rows), np.int64)


def _hash(kind: str, data: bytes, *numbers: int) -> str:
    text = f"tokgen {kind} 1 {' '.join(map(str, numbers))} ".encode()
    return hashlib.sha256(text + data).hexdigest()
