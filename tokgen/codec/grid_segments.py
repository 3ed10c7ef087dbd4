"""Find the parts of audio that a codec decoded, each with its grid of frames.

Chunks are searched with `find_grid`. The score of every grid that is found is then followed over
the whole audio, against that of random grids, and the cheapest sequence of grids explains it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from tokgen.codec.grid import (
    THRESHOLD,
    Grid,
    GridScores,
    Roundtrip,
    check_audio,
    check_grid,
    find_grid,
    others_of,
)

__all__ = ["GridSegment", "find_grids"]

_CHUNK = 64  # frames that are searched together
_LEAST = 20  # frames of the shortest part that is searched
_BLOCK = 500  # frames whose scores are computed together
_CONTEXT = 16  # frames around a block
_OTHERS = 8  # random grids that every grid is compared with
_SWITCH = 2.5  # cost of a border, in frames of the strongest grid


@dataclass(frozen=True)
class GridSegment:
    """A part of audio.

    Attributes:
        start, end: its first sample, and the one after its last.
        grid: where its frames begin, as an offset from the start of the whole audio; None if the
            codec did not decode this part.
    """

    start: int
    end: int
    grid: Grid | None


@torch.no_grad()
def find_grids(
    waveform: Tensor, codec: Roundtrip, *, threshold: float = THRESHOLD
) -> list[GridSegment]:
    """Divide audio into parts that a codec decoded, each on its own grid, and others.

    Borders lie within about a frame of the true ones. Decoded parts shorter than 64 frames may be
    missed.

    Args:
        waveform, codec, threshold: as for `find_grid`.
    Returns:
        segments in order; together, they cover the audio.
    """
    check_grid(codec.spec)
    audio, hop = check_audio(waveform), codec.spec.hop_length
    n_frames = -(-len(audio) // hop)
    states = np.zeros(n_frames, dtype=int)  # 0 is no grid, i + 1 is grid i
    searched = np.zeros(n_frames, dtype=bool)
    grids: list[Grid] = []
    tracks: list[np.ndarray] = []
    while (chunk := _next_chunk((states == 0) & ~searched)) is not None:
        start, end = chunk
        found = find_grid(audio[start * hop : end * hop], codec, threshold=threshold)
        if not found.found or any(found.offset == grid.offset for grid in grids):
            searched[start:end] = True
            continue
        grids.append(found)  # chunks begin with a frame, so the offset is that of the whole audio
        tracks.append(_track(audio, codec, found.offset))
        states = _explain(tracks, states, start, end)
    borders = [0, *(np.flatnonzero(np.diff(states)) + 1).tolist(), n_frames]
    return [
        GridSegment(
            a * hop, min(b * hop, len(audio)), grids[states[a] - 1] if states[a] > 0 else None
        )
        for a, b in pairwise(borders)
    ]


def _next_chunk(unknown: np.ndarray) -> tuple[int, int] | None:
    """Return the first run of at least `_LEAST` frames, cut to `_CHUNK`."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], unknown.astype(int), [0]])))
    for start, end in edges.reshape(-1, 2).tolist():
        if end - start >= _LEAST:
            return start, end if end < start + _CHUNK + _LEAST else start + _CHUNK
    return None


def _track(audio: Tensor, codec: Roundtrip, offset: int) -> np.ndarray:
    """Return how far a grid's score lies above that of others, [T]; NaN at the ends."""
    hop = codec.spec.hop_length
    offsets = [offset, *others_of([offset], hop)[:_OTHERS]]
    n_frames = -(-len(audio) // hop)
    total, count = np.zeros(n_frames), np.zeros(n_frames)
    for first in range(0, n_frames, _BLOCK):
        begin = max(0, first - _CONTEXT)
        piece = audio[begin * hop : (first + _BLOCK + _CONTEXT + 1) * hop]
        scores = GridScores(codec, piece, _BLOCK + 2 * _CONTEXT)
        if scores.n_frames < _LEAST:
            continue
        values = torch.cat(list(scores.tracks(offsets)))[..., -1]  # all bands
        above = (values[0] - values[1:].mean(0)).double().cpu().numpy()
        frames = scores.frames(len(above)) + begin
        inside = (frames >= first) & (frames < min(first + _BLOCK, n_frames))
        np.add.at(total, frames[inside], above[inside])
        np.add.at(count, frames[inside], 1)
    with np.errstate(invalid="ignore"):
        return total / count


def _explain(tracks: Sequence[np.ndarray], states: np.ndarray, start: int, end: int) -> np.ndarray:
    """Return the most likely state of every frame [T]: 0 without a grid, or i + 1.

    Args:
        states: those before the last track was added; its grid was found in frames start..end - 1.
    """
    states = states.copy()
    states[start:end] = len(tracks)
    for _ in range(3):
        levels = [
            float(np.nanmean(track[states == i + 1])) if (states == i + 1).any() else np.inf
            for i, track in enumerate(tracks)
        ]
        known = [level for level in levels if np.isfinite(level) and level > 0]
        if not known:
            return states
        gains = np.stack(
            [np.zeros_like(tracks[0])]
            + [
                track - level / 2 if np.isfinite(level) else np.full_like(track, -1e9)
                for track, level in zip(tracks, levels, strict=True)
            ]
        )
        states = _best_path(np.nan_to_num(gains), _SWITCH * max(known))
    return states


def _best_path(gains: np.ndarray, cost: float) -> np.ndarray:
    """Return the states [T] of largest summed gains [S, T] less `cost` per change (Viterbi)."""
    n_states, n_frames = gains.shape
    total, came = gains[:, 0].copy(), np.zeros((n_frames, n_states), dtype=int)
    stay = np.arange(n_states)
    for t in range(1, n_frames):
        best = int(total.argmax())
        change = total[best] - cost > total
        came[t] = np.where(change, best, stay)
        total = np.where(change, total[best] - cost, total) + gains[:, t]
    path = np.empty(n_frames, dtype=int)
    path[-1] = total.argmax()
    for t in range(n_frames - 1, 0, -1):
        path[t - 1] = came[t, path[t]]
    return path
