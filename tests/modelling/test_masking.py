"""Schedules and training masks."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokgen.modelling.masking import cosine_schedule, n_masked, training_mask

MASK = 50


def test_schedule_falls_from_one_to_zero() -> None:
    assert cosine_schedule(0.0) == 1
    assert cosine_schedule(1.0) == pytest.approx(0, abs=1e-12)
    assert cosine_schedule(2 / 3) == pytest.approx(0.5)
    values = torch.as_tensor(cosine_schedule(torch.linspace(0, 1, 50)))
    assert (values.diff() < 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.lists(st.integers(0, 400), min_size=1, max_size=5))
def test_counts_follow_the_schedule_per_item(steps: int, totals: list[int]) -> None:
    total = torch.tensor(totals)
    now = total.clone()
    for step in range(steps):
        after = n_masked(step, steps, total, now)
        for first, before, left in zip(totals, now.tolist(), after.tolist(), strict=True):
            if step == steps - 1 or before == 0:
                assert left == 0
            else:
                gamma = math.cos(math.pi / 2 * (step + 1) / steps)
                wanted = math.floor(gamma * first + 1e-9)
                assert left == max(0, min(max(wanted, 1), before - 1))
                assert left < before
        now = after
    assert (now == 0).all()


def masks(lengths: list[int], seed: int, n_levels: int = 3):
    generator = torch.Generator().manual_seed(seed)
    shape = (len(lengths), n_levels, max(lengths))
    codes = torch.randint(0, MASK, shape, generator=generator)
    return codes, training_mask(codes, torch.tensor(lengths), MASK, generator)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(1, 30), min_size=1, max_size=6), st.integers(0, 1000))
def test_levels_below_visible_above_masked(lengths: list[int], seed: int) -> None:
    codes, mask = masks(lengths, seed)
    for b, n in enumerate(lengths):
        q, target = int(mask.level[b]), mask.target[b]
        assert torch.equal(mask.tokens[b, :q], codes[b, :q])
        assert (mask.tokens[b, q + 1 :] == MASK).all()
        assert (mask.tokens[b, q, target] == MASK).all()
        assert torch.equal(mask.tokens[b, q, ~target], codes[b, q, ~target])
        assert target.any()
        assert not target[n:].any()


def test_same_generator_same_mask() -> None:
    a, b, c = masks([20, 9], 5)[1], masks([20, 9], 5)[1], masks([20, 9], 6)[1]
    assert torch.equal(a.tokens, b.tokens)
    assert not torch.equal(a.tokens, c.tokens)


def test_distribution_over_levels_and_shares() -> None:
    """Levels are uniform; the mean share is that of cos(pi u / 2), 2 / pi."""
    _, mask = masks([200] * 3000, 0)
    frequency = torch.bincount(mask.level, minlength=3) / 3000
    torch.testing.assert_close(frequency, torch.full((3,), 1 / 3), atol=0.04, rtol=0)
    share = mask.target.float().mean(-1)
    assert share.mean().item() == pytest.approx(2 / math.pi, abs=0.02)
    assert share.min() < 0.1
    assert share.max() > 0.95
