"""Causal networks give the same bits however their input is cut."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from makers.audio import cut
from tokgen.codec.steps import ROWS, Frames, Steps
from tokgen.codec.windows import run_whole

HOP = 3


def sums(before: int, after: int, delay: int) -> Steps:
    """Add to each frame's inputs the sum of all frames before it, and note what was computed."""

    def run(
        chunk: Tensor, total: Tensor | None, first: int, n_frames: int
    ) -> tuple[Tensor, Tensor]:
        assert chunk.shape[-1] == before + ROWS * HOP + after
        frames = chunk.unfold(-1, before + HOP + after, HOP).sum(-1)  # [1, ROWS]
        start = torch.zeros(1) if total is None else total
        running = start + F.pad(frames.cumsum(-1), (1, 0))[:, :-1]
        return (running + frames).repeat_interleave(2, -1), start + frames.sum(-1)

    return Steps(run, hop_in=HOP, hop_out=2, before=before, after=after, delay=delay)


@pytest.mark.parametrize("n", [1, 2, 3, 47, 48, 49, 50, 200])
@pytest.mark.parametrize(("before", "after", "delay"), [(0, 0, 0), (2, 2, 0), (4, 1, 3), (0, 0, 2)])
def test_pieces_give_what_the_whole_gives(n: int, before: int, after: int, delay: int) -> None:
    x = torch.arange(1.0, n + 1)[None]
    frames = -(-n // HOP)
    padded = F.pad(x, (before, 3 * HOP * ROWS))
    windows = padded.unfold(-1, before + HOP + after, HOP).sum(-1)
    expected = windows.cumsum(-1).repeat_interleave(2, -1)[:, delay : delay + 2 * frames]
    assert run_whole([sums(before, after, delay)], x).equal(expected)
    for sizes in ([1], [2, 0, 50], [7]):
        stage, found, n_in = sums(before, after, delay), [], 0
        for piece in cut(x, sizes):
            found.extend(stage.push(piece))
            n_in += piece.shape[-1]
            assert sum(f.shape[-1] for f in found) == stage.ready(n_in)
        assert torch.cat([*found, *stage.finish()], dim=-1).equal(expected)


def test_nothing_gives_nothing() -> None:
    stage = sums(2, 2, 1)
    assert list(stage.push(torch.zeros(1, 0))) == [] and list(stage.finish()) == []


@pytest.mark.parametrize("sizes", [[1], [2, 0, 50], [7], [500]])
@pytest.mark.parametrize("n", [1, 3, 11, 12, 13, 100])
def test_each_frame_runs_once(n: int, sizes: list[int]) -> None:
    seen = []

    def run(x: Tensor, state: int | None) -> tuple[Tensor, int]:
        seen.append(x.shape[-1])
        frames = -(-x.shape[-1] // HOP)
        first = state or 0
        return torch.arange(first, first + frames)[None].repeat_interleave(2, -1), first + frames

    stage, found, n_in = Frames(run, hop_in=HOP, hop_out=2, first=4), [], 0
    for piece in cut(torch.ones(1, n), sizes):
        found.extend(stage.push(piece))
        n_in += piece.shape[-1]
        assert sum(f.shape[-1] for f in found) == stage.ready(n_in)
    found.extend(stage.finish())
    assert torch.cat(found, -1).equal(torch.arange(-(-n // HOP))[None].repeat_interleave(2, -1))
    assert seen[0] == min(n, 4 * HOP) and set(seen[1:-1]) <= {HOP} and sum(seen) == n
