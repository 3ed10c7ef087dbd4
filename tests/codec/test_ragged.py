"""Codes of levels with different frame rates."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from tokgen.codec.ragged import MISSING, RaggedLayout

STRIDES = [(4, 2, 1), (8, 4, 2, 1), (1,), (6, 3, 3, 1), (2, 2), (12, 4, 2)]


def make_levels(layout: RaggedLayout, n_frames: int, seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 99, (2, n * n_frames), generator=generator) for n in layout.repeats]


@given(strides=st.sampled_from(STRIDES), n_frames=st.integers(1, 9), seed=st.integers(0, 99))
def test_levels_come_back(strides: tuple[int, ...], n_frames: int, seed: int) -> None:
    layout = RaggedLayout(strides)
    levels = make_levels(layout, n_frames, seed)
    codes = layout.join(levels)
    assert codes.shape == (2, layout.n_codebooks, n_frames)
    assert layout.n_codebooks == sum(strides[0] // s for s in strides)
    assert all(a.equal(b) for a, b in zip(layout.split(codes), levels, strict=True))
    assert layout.join(layout.split(codes)).equal(codes)


@given(strides=st.sampled_from(STRIDES), n_frames=st.integers(2, 9), at=st.integers(1, 8))
def test_codes_can_be_cut_in_time(strides: tuple[int, ...], n_frames: int, at: int) -> None:
    """The first frames of the codes are the beginning of each level."""
    layout, at = RaggedLayout(strides), min(at, n_frames - 1)
    levels = make_levels(layout, n_frames)
    first = layout.split(layout.join(levels)[..., :at])
    for part, level, n in zip(first, levels, layout.repeats, strict=True):
        assert part.equal(level[:, : n * at])


@given(strides=st.sampled_from(STRIDES), k=st.integers(1, 22))
def test_fewer_levels_are_the_first_ones(strides: tuple[int, ...], k: int) -> None:
    layout = RaggedLayout(strides)
    k = min(k, layout.n_codebooks)
    levels = make_levels(layout, 3)
    found = layout.split(layout.join(levels)[:, :k])
    present = torch.cat([(part != MISSING).reshape(2, 3, -1) for part in found], -1)
    assert present.equal(torch.arange(layout.n_codebooks).expand_as(present) < k)
    for part, level in zip(found, levels, strict=True):
        assert part[part != MISSING].equal(level[part != MISSING])


def test_the_order_is_coarse_first_and_then_in_time() -> None:
    layout = RaggedLayout((4, 2, 1))
    levels = [torch.tensor([[0, 10]]), torch.tensor([[1, 2, 11, 12]])]
    levels.append(torch.tensor([[3, 4, 5, 6, 13, 14, 15, 16]]))
    assert layout.join(levels)[0].T.tolist() == [[0, 1, 2, 3, 4, 5, 6], [10, *range(11, 17)]]
    assert layout.spread("abc") == list("abbcccc")


def test_what_does_not_fit_is_refused() -> None:
    for strides in ((), (0,), (2, 4), (4, 3), (4.0,)):
        with pytest.raises(ValueError, match=r"strides = .*expected"):
            RaggedLayout(strides)
    layout = RaggedLayout((2, 1))
    with pytest.raises(ValueError, match="1 levels: this layout has 2"):
        layout.join([torch.zeros(1, 3)])
    with pytest.raises(ValueError, match=r"levels of \[3, 5\] frames: expected \[3, 6\]"):
        layout.join([torch.zeros(1, 3), torch.zeros(1, 5)])
    with pytest.raises(ValueError, match=r"codes of 4 levels: this layout has 1\.\.3"):
        layout.split(torch.zeros(1, 4, 5))
