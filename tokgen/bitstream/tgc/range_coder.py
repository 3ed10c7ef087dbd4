"""Range coder: symbols and integer counts to bytes, and back.

    encoder = RangeEncoder()
    encoder.encode(symbol, counts)  # counts int64 [S], each at least 1
    decoder = RangeDecoder(encoder.finish())
    decoder.decode(counts)  # symbol

The package constriction codes with probabilities of 24 bits. `weights_of` scales counts to
integers with the sum 2**24, so no probability is rounded in floating point. docs/tgc.md describes
the arithmetic. Streams carry no checksum: a damaged one decodes to wrong symbols or fails.
"""

from __future__ import annotations

import constriction
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "MAX_SYMBOLS",
    "TOTAL_BITS",
    "DamagedStream",
    "RangeDecoder",
    "RangeEncoder",
    "weights_of",
]

TOTAL_BITS = 24  # weights sum to 2**24
MAX_SYMBOLS = 1 << 20
_ANY = constriction.stream.model.Categorical(perfect=False)


class DamagedStream(ValueError):
    """The bytes are not what a `RangeEncoder` wrote."""


class RangeEncoder:
    """Encodes symbols."""

    def __init__(self) -> None:
        self._coder = constriction.stream.queue.RangeEncoder()

    def encode(self, symbols: NDArray[np.int64] | int, counts: NDArray[np.int64]) -> None:
        """Add one symbol with counts [S], or symbols [m] with a row of counts [m, S] each.

        Raises:
            ValueError: a symbol is outside 0..S - 1, or as `weights_of`.
        """
        rows = np.atleast_2d(counts)
        found = np.atleast_1d(np.asarray(symbols, np.int64))
        if not (len(found) == len(rows) and found.min() >= 0 and found.max() < rows.shape[1]):
            raise ValueError(
                f"symbols {found[:8].tolist()} with counts of shape {counts.shape}: expected a row "
                f"for each, and symbols in 0..{rows.shape[1] - 1}"
            )
        self._coder.encode(found.astype(np.int32), _ANY, _spare(rows))

    def finish(self) -> bytes:
        """Return all bytes, a multiple of 4."""
        return self._coder.get_compressed().astype("<u4").tobytes()


class RangeDecoder:
    """Decodes the symbols of a `RangeEncoder`.

    Raises:
        DamagedStream: the length is not a multiple of 4.
    """

    def __init__(self, data: bytes) -> None:
        if len(data) % 4:
            raise DamagedStream(f"{len(data)} bytes: expected a multiple of 4")
        words = np.frombuffer(data, "<u4").astype(np.uint32)
        self._coder = constriction.stream.queue.RangeDecoder(words)

    def decode(self, counts: NDArray[np.int64]) -> int:
        """Return the next symbol, given the counts [S] that it was encoded with.

        Raises:
            DamagedStream: the bytes were not encoded with these counts.
            ValueError: as `weights_of`.
        """
        try:
            return int(self._coder.decode(_ANY, _spare(counts[None]))[0])
        except AssertionError as error:
            raise DamagedStream("the bytes were not encoded with these counts") from error


def weights_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Scale counts [..., S] to weights of at least 1 with the sum 2**24.

    With C(s) the sum of the counts before symbol s, the weights before s sum to
    s + floor(C(s) * (2**24 - S) / C(S)).

    Raises:
        ValueError: a count below 1, a sum above 2**24, or other than 2..`MAX_SYMBOLS` symbols.
    """
    return _spare(counts).astype(np.int64) + 1


def _spare(counts: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weights less 1, as floats that constriction adds 1 to and does not round.

    They sum to what constriction has to share out after giving 1 to each symbol, so its own scale
    is 1.
    """
    size, ends = counts.shape[-1], counts.cumsum(-1)
    total = ends[..., -1:]
    if not (1 < size <= MAX_SYMBOLS and counts.min() >= 1 and total.max() <= 1 << TOTAL_BITS):
        raise ValueError(
            f"counts of shape {counts.shape}, from {counts.min()}, summing to {total.max()}: "
            f"expected 2..{MAX_SYMBOLS} counts of at least 1, summing to at most {1 << TOTAL_BITS}"
        )
    ends = ends * ((1 << TOTAL_BITS) - size) // total
    spare = ends.astype(np.float64)
    np.subtract(ends[..., 1:], ends[..., :-1], out=spare[..., 1:])
    return spare
