"""Codes as packed bits."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tokgen.codec.packing import bits_per_code, pack_codes, packed_size, unpack_codes


@given(
    size=st.sampled_from([2, 3, 60, 1024, 1025, 65536]),
    t=st.integers(0, 40),
    k=st.integers(1, 9),
    seed=st.integers(0, 99),
)
def test_codes_come_back(size: int, t: int, k: int, seed: int) -> None:
    codes = np.random.default_rng(seed).integers(size, size=(t, k)).astype(np.uint16)
    data = pack_codes(codes, size)
    assert len(data) == packed_size(t * k, size) == -(-t * k * bits_per_code(size) // 8)
    assert np.array_equal(unpack_codes(data, t, k, size), codes)


def test_the_first_code_is_in_the_highest_bits() -> None:
    assert pack_codes(np.array([[5, 1], [7, 0]]), 8) == bytes([0b10100111, 0b10000000])


def test_wrong_bytes_are_refused() -> None:
    with pytest.raises(ValueError, match="3 bytes of packed codes: expected 2"):
        unpack_codes(b"abc", 2, 2, 8)
    with pytest.raises(ValueError, match="a code is 7: expected codes below 6"):
        unpack_codes(b"\xff\xff", 2, 2, 6)
