"""Tests of entropy models, and of the codes of blocks as bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from tokgen.bitstream.tgc.block_codes import decode_block, encode_block
from tokgen.bitstream.tgc.entropy import AdaptiveCounts, EntropyModel, StaticCounts
from tokgen.bitstream.tgc.range_coder import DamagedStream


def draw(levels: int, size: int, n: int, seed: int = 0) -> NDArray[np.int64]:
    """Skewed codes that often repeat."""
    g = np.random.default_rng(seed)
    codes = np.minimum(g.geometric(min(0.9, 8 / size), (levels, n)) - 1, size - 1).astype(np.int64)
    for t in range(1, n):
        same = g.random(levels) < 0.3
        codes[same, t] = codes[same, t - 1]
    return codes


def models(levels: int, size: int) -> list[EntropyModel | None]:
    table = StaticCounts.fit([draw(levels, size, 400, 9)], levels, size)
    return [None, table, AdaptiveCounts(levels, size)]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 5), st.integers(2, 70), st.integers(1, 60), st.integers(0, 9))
def test_codes_come_back(levels: int, size: int, n: int, seed: int) -> None:
    codes = draw(levels, size, n, seed)
    for model in models(5, size):
        data = encode_block(codes, size, model)
        assert (decode_block(data, levels, n, size, model) == codes).all()


def test_models_save_bits_in_order() -> None:
    codes = draw(4, 60, 500)
    packed, static, adaptive = (len(encode_block(codes, 60, model)) for model in models(4, 60))
    assert packed == 4 * 500 * 6 // 8
    assert adaptive < static < 0.8 * packed


def test_packed_codes_are_big_endian_bits() -> None:
    codes = np.array([[1, 5], [2, 0]])
    assert encode_block(codes, 8) == bytes([0b00101010, 0b10000000])
    assert encode_block(codes, 6) == encode_block(codes, 8)


def test_adaptive_counts_are_those_of_the_docs() -> None:
    model = AdaptiveCounts(2, 4)
    state = model.start(1)
    assert model.counts(state, 0, np.array([], int)).tolist() == [2, 2, 2, 2]
    for code in (3, 3, 1):
        state = model.update(state, np.array([code]))
    repeated = 11 * (2 * 1 + 1) // (2 * (3 - 1) + 127)
    assert model.counts(state, 0, np.array([], int)).tolist() == [2, 3 + repeated, 2, 4]


def test_adaptive_counts_never_exceed_the_limit() -> None:
    model = AdaptiveCounts(1, 3)
    state = model.start(1)
    state.n_frames[0] = state.repeats[0] = 60_000
    state.before[:], state.rows[0, 1] = 1, 60_002
    assert 0 < model.counts(state, 0, np.array([], int)).sum() <= 1 << 24
    codes = np.ones((1, 5000), np.int64)
    assert len(encode_block(codes, 3, model)) < 40


def test_tables_are_saved(tmp_path: Path) -> None:
    table = models(3, 20)[1]
    table.save(tmp_path / "static.safetensors")
    found = StaticCounts.load(tmp_path / "static.safetensors")
    assert found.model_hash == table.model_hash and (found.table == table.table).all()
    assert StaticCounts(table.table[:2]).model_hash != table.model_hash
    (tmp_path / "static.safetensors").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"static\.safetensors is not a table of counts"):
        StaticCounts.load(tmp_path / "static.safetensors")


def test_wrong_codes_tables_and_models_are_refused() -> None:
    with pytest.raises(ValueError, match=r"codes span 0\.\.9: expected 0\.\.7"):
        encode_block(np.array([[0, 9]]), 8)
    with pytest.raises(ValueError, match="2 levels of 8 entries: the codes have 3 levels of 8"):
        encode_block(np.zeros((3, 1), int), 8, AdaptiveCounts(2, 8))
    with pytest.raises(ValueError, match="must be at least 1"):
        StaticCounts(np.zeros((2, 4), int))
    with pytest.raises(ValueError, match="expected integers"):
        StaticCounts(np.ones((2, 4)))
    with pytest.raises(ValueError, match="no codes to count"):
        StaticCounts.fit([], 2, 4)
    with pytest.raises(ValueError, match="expected 2 levels, and codes below 4"):
        StaticCounts.fit([np.full((2, 3), 4)], 2, 4)


def test_damaged_bytes_are_refused_or_decode_to_codes() -> None:
    codes = draw(2, 50, 40)
    with pytest.raises(DamagedStream, match="7 bytes of packed codes: expected 60"):
        decode_block(bytes(7), 2, 40, 50)
    with pytest.raises(DamagedStream, match="expected codes below 50"):
        decode_block(b"\xff" * 60, 2, 40, 50)
    for model in models(2, 50)[1:]:
        data = bytearray(encode_block(codes, 50, model))
        data[3] ^= 255
        try:
            found = decode_block(bytes(data), 2, 40, 50, model)
        except DamagedStream:
            continue
        assert found.shape == (2, 40) and found.max() < 50
