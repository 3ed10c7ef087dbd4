"""Codebook use and token match."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from tokgen.metrics.codebook import (
    codebook_use,
    live_codes,
    perplexity,
    token_match,
    use_with_interval,
)


def test_codebook_use_from_one_entry_to_all():
    uniform = torch.arange(64).repeat(4)[None]
    assert codebook_use([uniform[:, :100], uniform[:, 100:]], 64).tolist() == pytest.approx([100.0])
    assert codebook_use([torch.zeros(1, 9).long()], 64).item() == 0
    assert codebook_use([uniform % 8], 64).item() == pytest.approx(50)
    assert perplexity([uniform], 64).item() == pytest.approx(64)


def test_estimated_use_equals_codebook_use():
    codes = [np.random.default_rng(i).integers(0, 30, (3, 50 + i)) for i in range(4)]
    ours = use_with_interval(codes, 64)["codebook_use"]
    theirs = codebook_use([torch.from_numpy(c) for c in codes], 64)
    assert [e.mean for e in ours[1:]] == pytest.approx(theirs.tolist())
    assert ours[0].mean == pytest.approx(theirs.mean().item())
    assert all(e.n == 4 for e in ours)


def test_use_of_few_frames_is_biased_low_and_corrected():
    rng = np.random.default_rng(0)
    few = [rng.integers(0, 256, (2, 40)) for _ in range(8)]  # uniform: the truth is 100 %
    many = [rng.integers(0, 256, (2, 4000)) for _ in range(8)]
    use, corrected = (e[0] for e in use_with_interval(few, 256).values())
    assert use.mean < 95 and corrected.mean > use.mean + 3 and corrected.mean <= 100
    assert use.low < use.mean < use.high
    assert use_with_interval(many, 256)["codebook_use"][0].mean > 99
    single = use_with_interval([np.zeros((1, 9), dtype=int)], 256)["codebook_use"]
    assert single[0].mean == single[1].mean == 0 and math.isnan(single[0].low)


def test_token_match_counts_per_level():
    a = torch.tensor([[1, 2, 3, 4], [5, 6, 7, 8]])
    b = torch.tensor([[1, 2, 0, 0], [5, 6, 7, 8]])
    assert token_match(a, b).tolist() == [0.5, 1.0]
    with pytest.raises(ValueError, match="trim to match"):
        token_match(a, b[:, :3])


def test_codes_of_unequal_length_are_not_compared():
    with pytest.raises(ValueError, match=r"\(2, 5\) and \(2, 6\): trim to match"):
        token_match(torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, 6, dtype=torch.long))


def test_use_counts_the_codes_that_each_level_has() -> None:
    full = [np.arange(8) % 4, np.zeros(8, int), np.arange(0)]
    short = [np.arange(4) % 4, np.array([1, 1, 1, 1, 1, 1, 1, 1]), np.arange(0)]
    mean, *levels = use_with_interval([full, short], 4)["codebook_use"]
    assert [e.mean for e in levels[:2]] == pytest.approx([100, 50])
    assert np.isnan(levels[2].mean) and mean.mean == pytest.approx(75)
    assert not np.isnan(mean.low)


def test_only_live_codes_count() -> None:
    depth = torch.tensor([2, 1, 2, 1])
    codes = torch.tensor([[0, 1, 2, 3], [5, 0, 6, 0], [0, 0, 0, 0]])
    live = [live_codes(codes, depth), live_codes(codes, torch.full((4,), 2))]
    assert [len(level) for level in live[0]] == [4, 2, 0] and live_codes(codes, None)[2].equal(
        codes[2]
    )
    found = perplexity(live[:1], 8)
    assert found[:2].tolist() == pytest.approx([4, 2]) and found[2].isnan()
    assert codebook_use(live[:1], 8)[1] == pytest.approx(100 / 3)
    other = codes.clone()
    other[:, 1] = 7
    match = token_match(codes, other, depth)
    assert match[:2].tolist() == [0.75, 1.0] and match[2].isnan()
