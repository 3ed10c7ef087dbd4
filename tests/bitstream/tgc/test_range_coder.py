"""Tests of the range coder: round trip, size, the documented arithmetic, and wrong input."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from numpy.typing import NDArray

from makers.vectors import load_vectors
from tokgen.bitstream.tgc.range_coder import DamagedStream, RangeDecoder, RangeEncoder, weights_of

MASK = (1 << 64) - 1
SCRIPT = """
import torch
import numpy as np
from tokgen.bitstream.tgc.range_coder import RangeEncoder
torch.set_num_threads({threads})
g = np.random.default_rng(7)
encoder = RangeEncoder()
encoder.encode(g.integers(0, 50, 400), g.integers(1, 300_000, (400, 50)))
print(encoder.finish().hex())
"""


def draw(size: int, n: int, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Symbols [n] and rows of counts [n, size]: mixed, all equal, and nearly certain ones."""
    g = np.random.default_rng(seed)
    rows = g.integers(1, (1 << 24) // size // 4 + 2, (n, size))
    rows[::3] = 1
    rows[::5, 0] = (1 << 24) - rows[::5, 1:].sum(1)
    symbols = g.integers(0, size, n)
    symbols[::5] = 0
    return symbols, rows


def decode_in_integers(data: bytes, rows: NDArray[np.int64]) -> list[int]:
    """Decode as docs/tgc.md says, with Python's integers alone."""
    words = [int.from_bytes(data[i : i + 4], "little") for i in range(0, len(data), 4)]
    words = [*words, *[0] * (len(rows) + 2)]
    low, width, point, used, out = 0, MASK, (words[0] << 32) | words[1], 2, []
    for counts in rows.tolist():
        total, spare, begin, sums = sum(counts), (1 << 24) - len(counts), 0, [0]
        for s, count in enumerate(counts):
            begin += count
            sums.append(s + 1 + begin * spare // total)
        step = width >> 24
        at = ((point - low) & MASK) // step
        symbol = next(s for s in range(len(counts)) if at < sums[s + 1])
        low = (low + step * sums[symbol]) & MASK
        width = step * (sums[symbol + 1] - sums[symbol])
        if width < 1 << 32:
            low, width = (low << 32) & MASK, width << 32
            point, used = ((point << 32) & MASK) | words[used], used + 1
        out.append(symbol)
    return out


@pytest.mark.parametrize("size", [2, 3, 7, 1000, 1024])
def test_streams_decode_by_the_documented_arithmetic(size: int) -> None:
    symbols, rows = draw(size, 300, size)
    encoder = RangeEncoder()
    encoder.encode(symbols[:200], rows[:200])
    for symbol, counts in zip(symbols[200:], rows[200:], strict=True):
        encoder.encode(symbol, counts)
    data = encoder.finish()
    decoder = RangeDecoder(data)
    assert [decoder.decode(counts) for counts in rows] == symbols.tolist()
    assert decode_in_integers(data, rows) == symbols.tolist()
    shares = np.take_along_axis(rows, symbols[:, None], 1)[:, 0] / rows.sum(1)
    assert 0 <= 8 * len(data) + np.log2(shares).sum() < 64


def test_weights_sum_to_the_total_and_are_never_zero() -> None:
    for size in (2, 1000):
        weights = weights_of(draw(size, 50, 1)[1])
        assert (weights.sum(-1) == 1 << 24).all() and weights.min() >= 1
    exact = np.array([1, (1 << 24) - 2, 1])
    assert np.abs(weights_of(exact) - exact).max() <= 2


def test_a_certain_symbol_never_stops_the_coder() -> None:
    """Symbol 1 of [1/4, 1/2, 1/4], which keeps the middle of the interval, breaks some coders."""
    encoder, counts = RangeEncoder(), np.array([1, 2, 1])
    encoder.encode(np.ones(5000, np.int64), np.tile(counts, (5000, 1)))
    data = encoder.finish()
    decoder = RangeDecoder(data)
    assert len(data) <= 5000 // 8 + 8
    assert all(decoder.decode(counts) == 1 for _ in range(5000))


def test_bytes_do_not_depend_on_threads() -> None:
    made = {
        subprocess.run(
            [sys.executable, "-c", SCRIPT.format(threads=n)],
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for n in (1, 2)
    }
    assert len(made) == 1


def test_bytes_stay_those_of_older_versions() -> None:
    encoder, counts = RangeEncoder(), np.array([8, 4, 2, 1, 1])
    encoder.encode(np.arange(40) % 5, np.tile(counts, (40, 1)))
    assert encoder.finish().hex() == "426cbd5b330ced62fb5d385fa88c1dde"


@pytest.mark.parametrize("counts", [[1, 0, 1], [1 << 24, 1], [5], [3, -1]])
def test_wrong_counts_are_refused(counts: list[int]) -> None:
    with pytest.raises(ValueError, match=r"expected 2\.\.1048576 counts of at least 1"):
        weights_of(np.array(counts))


def test_wrong_symbols_and_bytes_are_refused() -> None:
    for symbol in (-1, 3):
        with pytest.raises(ValueError, match=r"symbols in 0\.\.2"):
            RangeEncoder().encode(symbol, np.array([1, 1, 1]))
    with pytest.raises(DamagedStream, match="5 bytes: expected a multiple of 4"):
        RangeDecoder(b"12345")


def test_random_bytes_decode_to_symbols_or_a_clear_error() -> None:
    g = np.random.default_rng(3)
    for _ in range(50):
        decoder, counts = RangeDecoder(g.bytes(8)), g.integers(1, 9, 20)
        try:
            assert all(0 <= decoder.decode(counts) < 20 for _ in range(200))
        except DamagedStream:
            continue


@pytest.mark.parametrize("kind", ["", "fixed_"])
def test_streams_are_as_short_as_those_of_the_reference_coder(kind: str) -> None:
    """The bytes are others than those of EnCodec's arithmetic coder, and at most 4 more."""
    found = {name: values.numpy() for name, values in load_vectors("encodec_ac").items()}
    symbols, cdf = found[f"{kind}symbols"], np.atleast_2d(found[f"{kind}cdf"])
    rows = np.diff(cdf, axis=1, prepend=0)
    rows = np.resize(rows, (len(symbols), rows.shape[1]))  # as often as needed
    encoder = RangeEncoder()
    encoder.encode(symbols, rows)
    data = encoder.finish()
    decoder = RangeDecoder(data)
    assert [decoder.decode(counts) for counts in rows] == symbols.tolist()
    assert len(data) <= len(found[f"{kind}stream"]) + 4
