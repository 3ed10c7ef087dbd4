"""Tests of prompt masks: continuation, infilling, periodic and coarse."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tokgen.codec.spec import CodecSpec
from tokgen.generation.prompts import (
    around,
    beginning,
    coarse,
    frame_starts,
    gap_start,
    periodic,
    scattered,
    task_prompt,
)
from tokgen.generation.settings import TaskSettings

SPEC = CodecSpec("x", 16000, 320, 4, 60)  # 20 ms per frame
OTHER = CodecSpec("y", 24000, 240, 2, 60)  # 10 ms per frame
CHUNKED = CodecSpec("z", 8000, 80, 2, 60, chunk_length=8000, chunk_stride=7920)


def test_beginning_keeps_the_first_seconds_at_every_level() -> None:
    mask = beginning(SPEC, 16000, 0.5)
    assert mask.shape == (4, 50) and mask.dtype == torch.bool
    assert mask[:, :25].all() and not mask[:, 25:].any()
    assert not beginning(SPEC, 16000, 0.0).any()


def test_gap_holds_every_frame_that_it_touches() -> None:
    mask = around(SPEC, 16000, 0.25, 0.51)  # frames 12 (0.24-0.26) to 25 (0.50-0.52)
    assert not mask[:, 12:26].any()
    assert mask[:, :12].all() and mask[:, 26:].all()


def test_impossible_seconds_are_refused() -> None:
    with pytest.raises(ValueError, match=r"seconds = -1: must be at least 0"):
        beginning(SPEC, 16000, -1.0)
    with pytest.raises(ValueError, match=r"gap from 2 s to 1 s: must end at or after its start"):
        around(SPEC, 16000, 2, 1)
    for start, end in ((math.nan, 1.0), (0.0, math.nan), (0.0, math.inf)):
        with pytest.raises(ValueError, match=r"gap from .*: must end at or after its start, and"):
            around(SPEC, 16000, start, end)
    for seconds in (math.nan, math.inf):
        with pytest.raises(ValueError, match=rf"seconds = {seconds}: must be at least 0, which"):
            beginning(SPEC, 16000, seconds)
        with pytest.raises(ValueError, match=rf"gap_seconds = {seconds}: must be at least 0 and"):
            gap_start(SPEC, 16000, seconds, (0, 0))
    with pytest.raises(ValueError, match=r"gap_seconds = -1: must be at least 0 and finite"):
        gap_start(SPEC, 16000, -1, (0, 0))
    with pytest.raises(ValueError, match=r"n_samples = -1: must be at least 0"):
        beginning(SPEC, -1, 0.5)
    assert around(SPEC, 16000, -0.1, 0.1)[0].tolist() == [False] * 5 + [True] * 45


def test_periodic_and_coarse() -> None:
    assert periodic(SPEC, 3200, 4)[0].nonzero().flatten().tolist() == [0, 4, 8]
    assert coarse(SPEC, 3200, 3).sum(-1).tolist() == [10, 10, 10, 0]
    with pytest.raises(ValueError, match=r"levels = 5: must be in 0\.\.4, the levels of x"):
        coarse(SPEC, 3200, 5)
    with pytest.raises(ValueError, match="period = 0: must be at least 1 frame"):
        periodic(SPEC, 3200, 0)


def test_frame_starts_of_overlapping_chunks() -> None:
    starts = frame_starts(CHUNKED, 10000)
    assert len(starts) == CHUNKED.n_frames(10000) == 200
    assert starts[99] == pytest.approx(0.99) and starts[100] == pytest.approx(0.99)


@given(st.floats(0.1, 8), st.floats(0.05, 3), st.integers(0, 50), st.integers(0, 50))
def test_gap_starts_at_the_same_second_for_every_codec(seconds, gap, seed, item) -> None:
    a, b = (gap_start(s, round(seconds * s.sample_rate), gap, (seed, item)) for s in (SPEC, OTHER))
    assert a == pytest.approx(b, abs=1e-3)
    assert a >= 0 and a + gap <= max(seconds, gap) + 1e-3


def test_tasks_by_name() -> None:
    n = 32000
    assert not task_prompt(TaskSettings(), SPEC, n, seed=0, item=0).any()
    begun = task_prompt(TaskSettings("continue", prompt_seconds=0.4), SPEC, n, seed=0, item=0)
    assert begun.equal(beginning(SPEC, n, 0.4))
    plain = task_prompt(TaskSettings("infill"), SPEC, n, seed=0, item=3)
    assert 50 <= (~plain[0]).sum() <= 51 and plain[0].equal(plain[3])
    assert not plain.equal(task_prompt(TaskSettings("infill"), SPEC, n, seed=0, item=6))
    helped = task_prompt(TaskSettings("infill", period=5, levels=1), SPEC, n, seed=0, item=3)
    assert helped[0].all() and helped[1, ::5].all()
    assert helped[1].sum() == (plain[1] | periodic(SPEC, n, 5)[1]).sum()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "edit"}, "task 'edit': must be one of vocode, continue, infill"),
        ({"prompt_seconds": 0}, "prompt_seconds = 0"),
        ({"gap_seconds": -1.0}, "gap_seconds = -1.0"),
        ({"gap_seconds": math.nan}, "gap_seconds = nan: must be above 0 and finite"),
        ({"prompt_seconds": math.inf}, "prompt_seconds = inf: must be above 0 and finite"),
        ({"period": -1}, "period = -1"),
    ],
)
def test_bad_settings_name_the_value(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        TaskSettings(**settings)


@given(st.integers(1, 60), st.floats(0, 1), st.integers(0, 99))
def test_scattered_keeps_a_share_of_each_level(n_frames: int, share: float, seed: int) -> None:
    mask = scattered(SPEC, 320 * n_frames, share, seed=seed)
    assert mask.shape == (4, n_frames)
    assert mask.sum(-1).tolist() == [round(share * n_frames)] * 4
    assert mask.equal(scattered(SPEC, 320 * n_frames, share, seed=seed))
    assert not (scattered(SPEC, 320 * n_frames, share / 2, seed=seed) & ~mask).any()


def test_levels_and_seeds_keep_different_frames() -> None:
    masks = [scattered(SPEC, 32000, 0.5, seed=seed) for seed in (0, 1)]
    assert not masks[0].equal(masks[1])
    assert len({tuple(level.tolist()) for level in masks[0]}) == 4
    with pytest.raises(ValueError, match=r"keep = 1.5: must be in 0\.\.1"):
        scattered(SPEC, 320, 1.5, seed=0)
