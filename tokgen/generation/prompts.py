"""Prompts: bool masks [K, T] that are true at the codes to keep; the others are generated.

These are the prompts of VampNet (Garcia et al. 2023): `beginning` for continuation, `around` a gap
for inpainting, `periodic` and `coarse` for compression. `scattered` keeps a share of the
codes. Combine masks with `|` and `&`.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from tokgen.codec.spec import CodecSpec
from tokgen.generation.settings import TaskSettings

__all__ = [
    "around",
    "beginning",
    "coarse",
    "frame_starts",
    "gap_start",
    "periodic",
    "scattered",
    "task_prompt",
]


def task_prompt(
    task: TaskSettings, spec: CodecSpec, n_samples: int, *, seed: int, item: int
) -> Tensor:
    """Return the mask [K, T] of an utterance of `n_samples` samples.

    The gap starts at the same second for every codec: it depends only on the seed, the item and
    the duration.
    """
    if task.name == "vocode":
        return beginning(spec, n_samples, 0.0)
    if task.name == "continue":
        return beginning(spec, n_samples, task.prompt_seconds)
    start = gap_start(spec, n_samples, task.gap_seconds, (seed, item))
    mask = around(spec, n_samples, start, start + task.gap_seconds)
    if task.period:
        mask |= periodic(spec, n_samples, task.period)
    if task.levels:
        mask |= coarse(spec, n_samples, task.levels)
    return mask


def gap_start(spec: CodecSpec, n_samples: int, gap_seconds: float, seeds: tuple[int, ...]) -> float:
    """Draw the start of a gap in seconds, uniformly; 0 if the gap is as long as the utterance.

    Raises:
        ValueError: gap_seconds is negative or not finite.
    """
    if not 0 <= gap_seconds < math.inf:
        raise ValueError(f"gap_seconds = {gap_seconds}: must be at least 0 and finite")
    room = max(0.0, n_samples / spec.sample_rate - gap_seconds)
    return float(np.random.default_rng(seeds).random() * room)


def beginning(spec: CodecSpec, n_samples: int, seconds: float) -> Tensor:
    """Keep frames that start in the first `seconds`.

    Raises:
        ValueError: negative seconds.
    """
    if not 0 <= seconds < math.inf:
        raise ValueError(
            f"seconds = {seconds:g}: must be at least 0, which keeps nothing, and finite"
        )
    starts = frame_starts(spec, n_samples)
    return (starts < seconds).expand(spec.n_codebooks, -1).clone()


def around(spec: CodecSpec, n_samples: int, start: float, end: float) -> Tensor:
    """Keep frames that do not overlap the gap from `start` to `end`, in seconds.

    Raises:
        ValueError: the gap ends before it starts, or is not finite.
    """
    if not -math.inf < start <= end < math.inf:
        raise ValueError(
            f"gap from {start:g} s to {end:g} s: must end at or after its start, and be finite"
        )
    starts = frame_starts(spec, n_samples)
    apart = (starts + spec.hop_length / spec.sample_rate <= start) | (starts >= end)
    return apart.expand(spec.n_codebooks, -1).clone()


def periodic(spec: CodecSpec, n_samples: int, period: int) -> Tensor:
    """Keep the frames 0, period, 2 period ...

    Raises:
        ValueError: period under 1.
    """
    if not period >= 1:
        raise ValueError(f"period = {period}: must be at least 1 frame, which keeps all frames")
    kept = torch.arange(spec.n_frames(n_samples)) % period == 0
    return kept.expand(spec.n_codebooks, -1).clone()


def coarse(spec: CodecSpec, n_samples: int, levels: int) -> Tensor:
    """Keep the first `levels` levels.

    Raises:
        ValueError: levels outside 0..K.
    """
    if not 0 <= levels <= spec.n_codebooks:
        raise ValueError(
            f"levels = {levels}: must be in 0..{spec.n_codebooks}, the levels of {spec.name}"
        )
    kept = torch.arange(spec.n_codebooks) < levels
    return kept[:, None].expand(-1, spec.n_frames(n_samples)).clone()


def scattered(spec: CodecSpec, n_samples: int, share: float, *, seed: int) -> Tensor:
    """Keep a share of the codes of each level, in frames that the seed chooses.

    Each level keeps `round(share * T)` codes. A smaller share keeps a part of what a larger share
    of the same seed keeps.

    Raises:
        ValueError: a share outside 0..1.
    """
    if not 0 <= share <= 1:
        raise ValueError(f"keep = {share}: must be in 0..1, the share of codes that stay")
    n_frames = spec.n_frames(n_samples)
    order = np.random.default_rng((seed, n_frames)).random((spec.n_codebooks, n_frames))
    rank = order.argsort(-1).argsort(-1)
    return torch.from_numpy(rank < round(share * n_frames))


def frame_starts(spec: CodecSpec, n_samples: int) -> Tensor:
    """Return the start of each frame's audio in seconds, float64 [T]. Chunks may overlap.

    Raises:
        ValueError: negative n_samples.
    """
    if n_samples < 0:
        raise ValueError(f"n_samples = {n_samples}: must be at least 0")
    n_frames = spec.n_frames(n_samples)
    if not spec.chunk_length:
        return torch.arange(n_frames).double() * spec.hop_length / spec.sample_rate
    per_chunk = spec.chunk_length // spec.hop_length
    chunk, frame = np.divmod(np.arange(n_frames), per_chunk)
    samples = chunk * spec.chunk_stride + frame * spec.hop_length
    return torch.from_numpy(samples / spec.sample_rate)
