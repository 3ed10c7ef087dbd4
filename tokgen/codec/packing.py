"""Codes as packed bits: ceil(log2(codebook_size)) bits for each code, the highest bit first.

Codes of a variable bitrate begin with the depth of all frames, ceil(log2(K)) bits each, and whole
bytes; the codes up to each frame's depth follow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "bits_per_code",
    "pack_codes",
    "pack_variable",
    "packed_size",
    "unpack_codes",
    "unpack_depth",
    "unpack_variable",
]


def bits_per_code(codebook_size: int) -> int:
    """Return the bits of a packed code."""
    return max(1, (codebook_size - 1).bit_length())


def packed_size(n_codes: int, codebook_size: int) -> int:
    """Return the bytes of packed codes; the last one is filled with zeros."""
    return -(-n_codes * bits_per_code(codebook_size) // 8)


def pack_codes(codes: NDArray[np.integer], codebook_size: int) -> bytes:
    """Pack codes [T, K] below `codebook_size`, frame by frame, and in a frame level by level."""
    n_bits = bits_per_code(codebook_size)
    bits = np.empty((codes.size, n_bits), np.uint8)
    for i in range(n_bits):
        bits[:, i] = (codes.reshape(-1) >> (n_bits - 1 - i)) & 1
    return np.packbits(bits).tobytes()


def unpack_codes(
    data: bytes, n_frames: int, n_levels: int, codebook_size: int
) -> NDArray[np.int64]:
    """Return the codes [n_frames, n_levels] that `pack_codes` packed.

    Raises:
        ValueError: another number of bytes, or a code outside the codebook.
    """
    size = packed_size(n_frames * n_levels, codebook_size)
    if len(data) != size:
        raise ValueError(f"{len(data)} bytes of packed codes: expected {size}")
    n_bits = bits_per_code(codebook_size)
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=n_frames * n_levels * n_bits)
    codes = np.zeros(n_frames * n_levels, np.int64)
    for column in bits.reshape(-1, n_bits).T:
        codes = 2 * codes + column
    if codes.size and codes.max() >= codebook_size:
        raise ValueError(f"a code is {codes.max()}: expected codes below {codebook_size}")
    return codes.reshape(n_frames, n_levels)


def pack_variable(
    live: NDArray[np.integer], depth: NDArray[np.integer], n_levels: int, codebook_size: int
) -> bytes:
    """Pack codes of a variable bitrate.

    Args:
        live: codes up to the depth [sum of depth], frame by frame.
        depth: levels of each frame [T] in 1..n_levels.
        n_levels: K.
    """
    return pack_codes(depth - 1, n_levels) + pack_codes(live, codebook_size)


def unpack_depth(data: bytes, n_frames: int, n_levels: int) -> NDArray[np.int64]:
    """Return the depth [T] at the beginning of what `pack_variable` packed.

    Raises:
        ValueError: too few bytes, or a depth above `n_levels`.
    """
    size = packed_size(n_frames, n_levels)
    if len(data) < size:
        raise ValueError(f"{len(data)} bytes of packed depth: expected {size}")
    return unpack_codes(data[:size], n_frames, 1, n_levels)[:, 0] + 1


def unpack_variable(
    data: bytes, n_frames: int, n_levels: int, codebook_size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the codes up to the depth [sum of depth], and the depth [T].

    Raises:
        ValueError: another number of bytes, or a depth or code out of range.
    """
    depth = unpack_depth(data, n_frames, n_levels)
    rest = data[packed_size(n_frames, n_levels) :]
    return unpack_codes(rest, int(depth.sum()), 1, codebook_size)[:, 0], depth
