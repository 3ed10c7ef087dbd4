"""Batches with masks: the same for any number of processes, with little padding if asked."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
import torch

from makers.training import LENGTHS, LEVELS, SIZE, make_rows, make_settings, make_tokens
from tokgen.modelling.depths import live_levels
from tokgen.modelling.masking import training_mask
from tokgen.runs.accelerator import step_seed
from tokgen.training.data import TrainingBatch, TrainingData, pack
from tokgen.training.excerpts import CropDataset, collate

ROWS = make_rows(LENGTHS)
MASK = SIZE


def data(lengths: list[int] | None = None, *, crop=(50, 0), process=0, processes=1, **more):
    rows = make_rows(lengths) if lengths else ROWS
    split = dict(process=process, processes=processes)
    return TrainingData(rows, make_settings(**more), crop, MASK, **split)


def tensors(batch: TrainingBatch) -> dict[str, torch.Tensor]:
    found = {f.name: getattr(batch, f.name) for f in fields(batch)}
    found |= vars(found.pop("mask"))
    return {k: v for k, v in found.items() if isinstance(v, torch.Tensor)}


def same(a: TrainingBatch, b: TrainingBatch) -> bool:
    first, second = tensors(a), tensors(b)
    return set(first) == set(second) and all(first[k].equal(second[k]) for k in first)


def test_pass_j_holds_the_next_items_with_masks_of_seed_and_step() -> None:
    found = data(gradient_accumulation=2, seed=3)
    assert len(found) == 20
    items = CropDataset(ROWS, 50, n_items=80, seed=3)
    for j in (0, 1, 7, 19):
        plain = collate([items[i] for i in range(4 * j, 4 * j + 4)])
        generator = torch.Generator().manual_seed(step_seed(3, j // 2, j % 2, 0))
        mask = training_mask(plain.codes, plain.lengths, MASK, generator)
        batch = found[j]
        assert batch.codes.equal(plain.codes) and batch.lengths.equal(plain.lengths)
        assert batch.mask.tokens.equal(mask.tokens) and batch.mask.target.equal(mask.target)
        assert batch.mask.level.equal(mask.level) and batch.mask.divisor is None
        assert batch.hidden.equal(torch.rand(4, generator=generator) < 0.2)
        assert batch.padded == (int(plain.lengths.min()) < plain.codes.shape[-1])
        each = plain.lengths
        assert (batch.counts.frames, batch.counts.pairs) == (each.sum(), (each**2).sum())
        assert batch.counts.targets == mask.target.sum()


def test_processes_share_the_batch_of_one() -> None:
    whole = data(batch_size=6, seed=1)
    parts = [data(batch_size=2, seed=1, process=p, processes=3) for p in range(3)]
    for j in (0, 5):
        found = [tensors(part[j]) for part in parts]
        for name, value in tensors(whole[j]).items():
            assert torch.cat([f[name] for f in found]).equal(value), name
        hidden = whole[j].mask.target.sum()
        assert all(f["divisor"] * 3 == pytest.approx(int(hidden)) for f in found)


@pytest.mark.parametrize("more", [{}, {"crop_seconds_min": 0.4}, {"packing": True}])
def test_a_batch_does_not_depend_on_earlier_ones(more) -> None:
    crop = (50, 20)
    first, second = data(crop=crop, **more), data(crop=crop, steps=30, **more)
    ordered = [first[j] for j in range(10)]
    assert all(same(second[j], ordered[j]) for j in reversed(range(10)))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_begins_at_the_given_pass(workers: int) -> None:
    found = data(workers=workers)
    batches = list(found.loader(6, pin_memory=False))
    assert len(batches) == 4
    assert all(same(batch, found[6 + n]) for n, batch in enumerate(batches))


def test_variable_crops_have_few_lengths_and_little_padding() -> None:
    lengths = [int(n) for n in np.random.default_rng(0).integers(10, 250, 200)]
    more = {"steps": 40, "batch_size": 8}
    plain = data(lengths, crop=(250, 0), **more)
    found = data(lengths, crop=(250, 64), crop_seconds_min=0.5, **more)
    shapes = {found[j].codes.shape[-1] for j in range(40)}
    assert shapes <= {32, 64, 96, 128, 160, 192, 224, 250} and len(shapes) > 4

    def padding(of: TrainingData) -> float:
        batches = [of[j] for j in range(25)]  # an epoch
        return 1 - sum(b.counts.frames for b in batches) / sum(
            b.codes.shape[0] * b.codes.shape[2] for b in batches
        )

    assert padding(found) < 0.15 < padding(plain)


def test_every_utterance_once_an_epoch_with_variable_crops() -> None:
    lengths = list(range(20, 62))
    found = data(lengths, crop=(64, 32), crop_seconds_min=0.5, batch_size=5, steps=84)
    seen = [int(m) for i in range(420) for m in found._members(i)]
    assert all(sorted(seen[e : e + 42]) == list(range(42)) for e in range(0, 420, 42))
    assert len({tuple(seen[e : e + 42]) for e in range(0, 420, 42)}) == 10


def test_equal_tokens_fill_batches_of_shorter_excerpts() -> None:
    more = {"crop_seconds_min": 0.5, "equal_tokens": True, "batch_size": 4}
    found = data([300] * 20, crop=(256, 32), steps=30, **more)
    sizes = {tuple(found[j].codes.shape[::2]) for j in range(30)}
    assert len(sizes) > 3
    assert all(4 * 256 - frames < batch * frames <= 4 * 256 for batch, frames in sizes)


def test_packing_fills_rows_and_keeps_every_utterance() -> None:
    lengths = np.minimum(np.random.default_rng(0).integers(5, 80, 300), 50)
    rows = pack(lengths, 50)
    assert sorted(i for row in rows for i in row) == list(range(300))
    assert all(lengths[row].sum() <= 50 for row in rows)
    assert lengths.sum() / (50 * len(rows)) > 0.97

    found = data(packing=True)
    batch = found[0]
    assert batch.documents is not None
    for line, n, codes in zip(batch.documents, batch.lengths.tolist(), batch.codes, strict=True):
        assert (line[n:] == -1).all() and (line[:n] >= 0).all()
        assert (line[:n].diff() >= 0).all() and not codes[:, n:].any()
    epoch = [int(m) for i in range(len(found.rows)) for m in found._members(i)]
    assert sorted(epoch) == list(range(len(LENGTHS)))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"packing": True, "crop_seconds_min": 0.5}, "packing with crop_seconds_min"),
        ({"crop_seconds_min": 2.0}, "crop_seconds_min = 2.0: must be at most crop_seconds = 1.0"),
        ({"equal_tokens": True}, "equal_tokens without crop_seconds_min"),
        ({"ema": 1.0}, "ema = 1.0: must be at least 0 and below 1"),
        ({"workers": -1}, "workers is -1, but must be at least 0"),
        ({"weight_decay": -0.1}, "weight_decay is -0.1, but must be at least 0"),
        ({"learning_rate": float("nan")}, "learning_rate is nan, but must be above 0 and finite"),
        ({"crop_seconds": -3.0}, "crop_seconds is -3, but must be above 0 and finite"),
        ({"conditioning_dropout": 1.5}, "conditioning_dropout is 1.5, but must be between 0 and 1"),
    ],
)
def test_wrong_settings_are_refused(more, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_settings(**more)


def test_batches_of_a_variable_bitrate_have_the_depth_first() -> None:
    tokens = make_tokens(variable=True)
    rows, settings = tokens.splits["train"], make_settings(batch_size=6)
    whole = TrainingData(rows, settings, (50, 0), MASK)
    few = make_settings(batch_size=2)
    parts = [TrainingData(rows, few, (50, 0), MASK, process=p, processes=3) for p in range(3)]
    plain = make_rows(LENGTHS)["codes"]
    for j in (0, 3):
        batch, mask = whole[j], whole[j].mask
        assert batch.codes.shape[1] == LEVELS + 1
        live = live_levels(batch.codes)
        live &= (torch.arange(live.shape[-1]) < batch.lengths[:, None])[:, None]
        at_level = live[torch.arange(6), mask.level]
        assert mask.target.any(-1).all() and not (mask.target & ~at_level).any()
        halves = [part[j] for part in parts]
        assert torch.cat([h.mask.tokens for h in halves]).equal(mask.tokens)
        assert torch.cat([h.mask.target for h in halves]).equal(mask.target)
        assert halves[0].mask.divisor == mask.target.sum() / 3
        utterance = int(whole._members(6 * j)[0])
        n = min(LENGTHS[utterance], 50)
        excerpt = whole.excerpts.excerpt(utterance, 6 * j, 50).codes
        depth = excerpt[0] + 1
        starts = range(LENGTHS[utterance] - n + 1)
        codes = [torch.tensor(plain[utterance][s : s + n]).T for s in starts]
        kept = torch.arange(LEVELS)[:, None] < depth
        assert any(torch.equal(c * kept, excerpt[1:]) for c in codes)
