"""The alignment's prior, loss and search, against counting all alignments."""

from __future__ import annotations

from itertools import combinations, pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import betabinom
from torch import Tensor

from tokgen.modelling.text.alignment import (
    alignment_loss,
    best_durations,
    diagonal_prior,
    expand,
)


def every_alignment(n_symbols: int, n_frames: int) -> list[list[int]]:
    """Durations of all monotonic alignments."""
    cuts = combinations(range(1, n_frames), n_symbols - 1)
    ends = [[0, *cut, n_frames] for cut in cuts]
    return [[b - a for a, b in pairwise(e)] for e in ends]


def value_of(log_p: Tensor, durations: list[int]) -> float:
    symbols = torch.tensor(durations)
    frames = torch.arange(len(durations)).repeat_interleave(symbols)
    return float(log_p[torch.arange(len(frames)), frames].sum())


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 4), st.integers(0, 4), st.integers(0, 999))
def test_the_best_durations_are_the_likeliest_of_all(n: int, more: int, seed: int) -> None:
    scores = torch.randn(2, 9, 5, generator=torch.Generator().manual_seed(seed))
    sizes = torch.tensor([n, 2]), torch.tensor([n + more, 9])
    found = best_durations(scores, *sizes)
    log_p = scores[0, : n + more, :n].log_softmax(-1)
    best = max(every_alignment(n, n + more), key=lambda d: value_of(log_p, d))
    assert value_of(log_p, found[0, :n].tolist()) == pytest.approx(value_of(log_p, best))
    assert found.sum(-1).tolist() == [n + more, 9] and (found[0, :n] >= 1).all()
    assert not found[0, n:].any()


def test_the_loss_sums_over_all_alignments() -> None:
    """With the blank, which CTC adds: compare with a sum over paths that may skip to blanks."""
    scores = 8 * torch.randn(1, 5, 3, generator=torch.Generator().manual_seed(0))
    sizes = torch.tensor([3]), torch.tensor([5])
    low = min(-value_of(scores[0].log_softmax(-1), d) for d in every_alignment(3, 5))
    loss = alignment_loss(scores, *sizes)
    assert 0 < float(loss) < (low + 0.5) / 3  # nats per symbol; a sum is likelier than its best
    certain = torch.full((1, 5, 3), -50.0)
    certain[0, [0, 1, 2, 3, 4], [0, 0, 1, 2, 2]] = 50.0
    assert float(alignment_loss(certain, *sizes)) == pytest.approx(0, abs=1e-3)
    padded = torch.nn.functional.pad(scores, (0, 2, 0, 3), value=9.0)
    assert float(alignment_loss(padded, *sizes)) == pytest.approx(float(loss), rel=1e-5)


def test_the_prior_is_beta_binomial() -> None:
    prior = diagonal_prior(torch.tensor([5, 3]), torch.tensor([9, 4]), (9, 5)).exp()
    for t in (0, 3, 8):
        assert prior[0, t].tolist() == pytest.approx(betabinom.pmf(range(5), 4, t + 1, 9 - t))
    torch.testing.assert_close(prior[1, :4].sum(-1), torch.ones(4))
    assert not prior[1, :, 3:].any()


def test_frames_know_their_symbol_and_place() -> None:
    symbol, before = expand(torch.tensor([[2, 1, 3], [1, 1, 0]]), 6)
    assert symbol.tolist() == [[0, 0, 1, 2, 2, 2], [0, 1, 2, 2, 2, 2]]
    assert before[0].tolist() == [0, 1, 0, 0, 1, 2]


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="item 1 has 4 symbols in 3 frames"):
        best_durations(torch.zeros(2, 5, 4), torch.tensor([2, 4]), torch.tensor([5, 3]))
