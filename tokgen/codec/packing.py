"""Codes as packed bits: ceil(log2(codebook_size)) bits for each code, the highest bit first."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["bits_per_code", "pack_codes", "packed_size", "unpack_codes"]


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
