"""Excerpts of a token dataset: the same after a resume, and padded in batches."""

from __future__ import annotations

import pytest
import torch
from datasets import Dataset

from makers.tokens import LENGTHS, token_rows
from tokgen.training.excerpts import CropDataset, Excerpt, collate


@pytest.fixture(scope="module")
def rows() -> Dataset:
    return token_rows()


def equal(a: Excerpt, b: Excerpt) -> bool:
    assert a.conditioning is not None and b.conditioning is not None
    return torch.equal(a.codes, b.codes) and torch.equal(a.conditioning, b.conditioning)


def test_excerpt_is_a_contiguous_aligned_piece(rows: Dataset) -> None:
    data = CropDataset(rows, 10, n_items=50, seed=1)
    for item in data:
        assert item.codes.dtype == torch.int64
        assert item.conditioning is not None and item.conditioning.dtype == torch.float32
        utterance = int(item.codes[0, 0]) // 100
        n = item.codes.shape[-1]
        assert n == min(10, LENGTHS[utterance])
        assert torch.equal(item.codes[0] - 100 * utterance, item.codes[1])
        assert torch.equal(item.codes[1].diff(), torch.ones(n - 1, dtype=torch.int64))
        assert torch.equal(item.conditioning[0], item.codes[1].float())
        assert (item.conditioning[2] == utterance).all()


def test_every_utterance_once_an_epoch(rows: Dataset) -> None:
    data = CropDataset(rows, 10, n_items=30, seed=3)
    seen = [int(item.codes[0, 0]) // 100 for item in data]
    epochs = [seen[i : i + 5] for i in range(0, 30, 5)]
    assert all(sorted(epoch) == [0, 1, 2, 3, 4] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 1


def test_item_depends_on_seed_and_index_alone(rows: Dataset) -> None:
    """A resumed run gets the same items, in any order and for any length of the dataset."""
    ordered = list(CropDataset(rows, 10, n_items=30, seed=3))
    longer = CropDataset(rows, 10, n_items=100, seed=3)
    for i in reversed(range(30)):
        assert equal(longer[i], ordered[i])
    other = list(CropDataset(rows, 10, n_items=30, seed=4))
    assert not all(torch.equal(a.codes, b.codes) for a, b in zip(ordered, other, strict=True))


def test_all_positions_are_drawn(rows: Dataset) -> None:
    only = rows.select([1])
    starts = {int(e.codes[1, 0]) for e in CropDataset(only, 38, n_items=60, seed=0)}
    assert starts == {0, 1, 2}


def test_positions_within_an_epoch_are_independent(rows: Dataset) -> None:
    copies = rows.select([1] * 20)
    starts = {int(e.codes[1, 0]) for e in CropDataset(copies, 10, n_items=20, seed=0)}
    assert len(starts) > 5


def test_collate_pads_on_the_right_with_zeros(rows: Dataset) -> None:
    batch = collate(list(CropDataset(rows, 10, n_items=5, seed=0)))
    assert batch.codes.shape == (5, 2, 10)
    assert batch.conditioning is not None and batch.conditioning.shape == (5, 3, 10)
    assert sorted(batch.lengths.tolist()) == [1, 5, 10, 10, 10]
    for i, n in enumerate(batch.lengths.tolist()):
        assert (batch.codes[i, :, n:] == 0).all()
        assert (batch.conditioning[i, :, n:] == 0).all()
    moved = batch.to("cpu")
    assert torch.equal(moved.codes, batch.codes)


def test_without_conditioning() -> None:
    batch = collate(list(CropDataset(token_rows(mfcc=False), 10, n_items=3)))
    assert batch.conditioning is None
    assert batch.to("cpu").conditioning is None


def test_bad_settings_are_refused(rows: Dataset) -> None:
    with pytest.raises(ValueError, match="no rows"):
        CropDataset(rows.select([]), 10, n_items=1)
    with pytest.raises(ValueError, match="crop_frames = 0"):
        CropDataset(rows, 0, n_items=1)
    with pytest.raises(IndexError, match="item 3 of 3"):
        CropDataset(rows, 10, n_items=3)[3]
    item = CropDataset(rows, 10, n_items=1)[0]
    with pytest.raises(ValueError, match="some excerpts"):
        collate([item, Excerpt(item.codes, None)])
