"""Layouts of codes for language models: exact both ways, and errors for what they cannot hold."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tokgen.tokens.layouts import add_offsets, delay, flatten, remove_offsets, undelay, unflatten

SIZE = 10
CODES = torch.tensor([[1, 2, 3], [4, 5, 6]])  # [2, 3]


@st.composite
def drawn_codes(draw: st.DrawFn) -> Tensor:
    """Codes [..., K, T] of 0 to 2 leading dimensions and of several types."""
    lead = draw(st.lists(st.integers(1, 3), max_size=2))
    shape = (*lead, draw(st.integers(1, 5)), draw(st.integers(1, 7)))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**32)))
    kind = draw(st.sampled_from([torch.int64, torch.int32, torch.uint8]))
    return torch.randint(SIZE, shape, generator=noise).to(kind)


def test_each_layout_of_two_levels() -> None:
    assert flatten(CODES).tolist() == [1, 4, 2, 5, 3, 6]
    assert add_offsets(CODES, SIZE).tolist() == [[1, 2, 3], [14, 15, 16]]
    assert add_offsets(CODES, [4, 7]).tolist() == [[1, 2, 3], [8, 9, 10]]
    assert delay(CODES, -1).tolist() == [[1, 2, 3, -1], [-1, 4, 5, 6]]


@given(drawn_codes())
@settings(deadline=None, max_examples=60)
def test_flattened_codes_come_back(codes: Tensor) -> None:
    sequence = flatten(codes)
    assert sequence.shape == (*codes.shape[:-2], codes.shape[-2] * codes.shape[-1])
    assert unflatten(sequence, codes.shape[-2]).equal(codes)


@given(drawn_codes(), st.booleans())
@settings(deadline=None, max_examples=60)
def test_offsets_come_back_and_levels_share_no_value(codes: Tensor, single: bool) -> None:
    sizes = SIZE if single else [SIZE + k for k in range(codes.shape[-2])]
    raised = add_offsets(codes, sizes)
    assert remove_offsets(raised, sizes).equal(codes.long())
    levels = [set(raised[..., k, :].flatten().tolist()) for k in range(codes.shape[-2])]
    assert len(set().union(*levels)) == sum(map(len, levels))


@given(drawn_codes())
@settings(deadline=None, max_examples=60)
def test_delayed_codes_come_back(codes: Tensor) -> None:
    n_levels, n_frames = codes.shape[-2:]
    steps = delay(codes, SIZE)
    assert steps.shape == (*codes.shape[:-1], n_frames + n_levels - 1)
    assert steps.dtype == codes.dtype
    for k in range(n_levels):
        for s in range(steps.shape[-1]):
            inside = 0 <= s - k < n_frames
            expected = codes[..., k, s - k] if inside else torch.full_like(codes[..., k, 0], SIZE)
            assert steps[..., k, s].equal(expected)
    assert undelay(steps, SIZE).equal(codes)
    assert undelay(steps).equal(codes)


@given(drawn_codes(), st.data())
@settings(deadline=None, max_examples=40)
def test_padded_items_are_delayed_as_if_alone(codes: Tensor, data: st.DataObject) -> None:
    batch = codes.reshape(-1, *codes.shape[-2:])
    n_levels, n_frames = codes.shape[-2:]
    lengths = [data.draw(st.integers(1, n_frames)) for _ in batch]
    steps = delay(batch, SIZE, lengths=lengths)
    for item, whole, n in zip(steps, batch, lengths, strict=True):
        assert item[:, : n + n_levels - 1].equal(delay(whole[:, :n], SIZE))
        assert (item[:, n + n_levels - 1 :] == SIZE).all()
    back = undelay(steps, SIZE)
    for item, whole, n in zip(back, batch, lengths, strict=True):
        assert item[:, :n].equal(whole[:, :n]) and (item[:, n:] == SIZE).all()


def test_logits_of_steps_become_logits_of_frames() -> None:
    logits = torch.randn(2, 3, 6, 5)  # [B, K, T + K - 1, V]
    found = undelay(logits, dim=2)
    assert found.shape == (2, 3, 4, 5)
    assert all(found[:, k, t].equal(logits[:, k, t + k]) for k in range(3) for t in range(4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: flatten(torch.arange(3)), r"shape \(3,\): expected \[\.\.\., K, T\]"),
        (lambda: flatten(CODES.float()), "float32: expected integers"),
        (lambda: unflatten(torch.arange(7), 2), "7 codes .* multiple of 2"),
        (lambda: unflatten(torch.arange(6), 0), "n_codebooks = 0: must be at least 1"),
        (lambda: add_offsets(CODES, 6), r"value 6 at level 1, frame 2: must be in 0\.\.5"),
        (lambda: add_offsets(CODES - 2, 6), r"value -1 at level 0, frame 0"),
        (lambda: add_offsets(CODES, [6]), "1 codebook sizes for 2 levels"),
        (lambda: add_offsets(CODES, 0), "codebook_size = 0: must be at least 1"),
        (lambda: remove_offsets(CODES, SIZE), r"value 4 at level 1, frame 0: must be in 10\.\.19"),
        (lambda: delay(CODES, 3), "fill = 3 is one of the codes"),
        (lambda: delay(CODES.to(torch.uint8), 256), "256 does not fit torch.uint8"),
        (lambda: delay(CODES[None], -1, lengths=[4]), r"must be in 0\.\.3"),
        (lambda: delay(CODES[None], -1, lengths=[1, 2]), r"lengths of shape \(2,\) .* \(1,\)"),
        (lambda: undelay(torch.ones(3, 2)), r"2 steps of 3 levels hold no frame: .* T \+ 2"),
        (lambda: undelay(torch.ones(3)), r"shape \(3,\): expected"),
        (lambda: undelay(torch.tensor([[1, 2, -1], [3, 4, 5]]), -1), "1 codes stand where"),
        (lambda: undelay(torch.tensor([[1, -1, -1], [-1, 4, 5]]), -1), "-1, the fill, stands"),
    ],
)
def test_errors(call, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()
