"""Prompts: bool masks [K, T] that are true at the codes to keep; the others are generated.

These are the prompts of VampNet (Garcia et al. 2023): `beginning` for continuation, `around` a gap
for inpainting, `periodic` and `coarse` for compression. Combine masks with `|` and `&`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tokgen.codec.spec import CodecSpec

__all__ = [
    "MARGIN_SECONDS",
    "TASKS",
    "TaskSettings",
    "around",
    "beginning",
    "coarse",
    "frame_starts",
    "gap_start",
    "periodic",
]

TASKS = ("vocode", "continue", "infill")
MARGIN_SECONDS = 0.25  # utterances are at least this much longer than their prompt or gap


@dataclass(frozen=True)
class TaskSettings:
    """Settings of the task: which part of an utterance is generated.

    Attributes:
        name: "vocode" generates everything from the conditioning, "continue" keeps the first
            `prompt_seconds`, "infill" generates a gap of `gap_seconds` at a random position.
        prompt_seconds: duration of the kept beginning in "continue".
        gap_seconds: duration of the gap in "infill".
        period: "infill" keeps every `period`-th frame in the gap; 0 keeps none.
        levels: number of coarse levels that "infill" keeps in the gap.
        conditioned: use the conditioning in "continue" and "infill" too, if the model has one.
    """

    name: Literal["vocode", "continue", "infill"] = "vocode"
    prompt_seconds: float = 1.0
    gap_seconds: float = 1.0
    period: int = 0
    levels: int = 0
    conditioned: bool = False

    def __post_init__(self) -> None:
        if self.name not in TASKS:
            raise ValueError(f"task {self.name!r}: must be one of {', '.join(TASKS)}")
        for name in ("prompt_seconds", "gap_seconds"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be above 0")
        for name in ("period", "levels"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 0")

    @property
    def shortest_seconds(self) -> float:
        """Duration in seconds that an utterance needs, so that some codes are kept and some not."""
        of_task = {"continue": self.prompt_seconds, "infill": self.gap_seconds}
        return of_task[self.name] + MARGIN_SECONDS if self.name in of_task else 0.0

    def keep(self, spec: CodecSpec, n_samples: int, *, seed: int, item: int) -> Tensor:
        """Return the mask [K, T] of an utterance of `n_samples` samples.

        The gap starts at the same second for every codec: it depends only on the seed, the item and
        the duration.
        """
        if self.name == "vocode":
            return beginning(spec, n_samples, 0.0)
        if self.name == "continue":
            return beginning(spec, n_samples, self.prompt_seconds)
        start = gap_start(spec, n_samples, self.gap_seconds, (seed, item))
        mask = around(spec, n_samples, start, start + self.gap_seconds)
        if self.period:
            mask |= periodic(spec, n_samples, self.period)
        if self.levels:
            mask |= coarse(spec, n_samples, self.levels)
        return mask


def gap_start(spec: CodecSpec, n_samples: int, gap_seconds: float, seeds: tuple[int, ...]) -> float:
    """Draw the start of a gap in seconds, uniformly; 0 if the gap is as long as the utterance."""
    room = max(0.0, n_samples / spec.sample_rate - gap_seconds)
    return float(np.random.default_rng(seeds).random() * room)


def beginning(spec: CodecSpec, n_samples: int, seconds: float) -> Tensor:
    """Keep frames that start in the first `seconds`.

    Raises:
        ValueError: negative seconds.
    """
    if not seconds >= 0:
        raise ValueError(f"seconds = {seconds:g}: must be at least 0, which keeps nothing")
    starts = frame_starts(spec, n_samples)
    return (starts < seconds).expand(spec.n_codebooks, -1).clone()


def around(spec: CodecSpec, n_samples: int, start: float, end: float) -> Tensor:
    """Keep frames that do not overlap the gap from `start` to `end`, in seconds.

    Raises:
        ValueError: the gap ends before it starts.
    """
    if not start <= end:
        raise ValueError(f"gap from {start:g} s to {end:g} s: must end at or after its start")
    starts = frame_starts(spec, n_samples)
    apart = (starts + spec.hop_length / spec.sample_rate <= start) | (starts >= end)
    return apart.expand(spec.n_codebooks, -1).clone()


def periodic(spec: CodecSpec, n_samples: int, period: int) -> Tensor:
    """Keep the frames 0, period, 2 period ..."""
    if period < 1:
        raise ValueError(f"period = {period}: must be at least 1 frame")
    kept = torch.arange(spec.n_frames(n_samples)) % period == 0
    return kept.expand(spec.n_codebooks, -1).clone()


def coarse(spec: CodecSpec, n_samples: int, levels: int) -> Tensor:
    """Keep the first `levels` levels."""
    if not 0 <= levels <= spec.n_codebooks:
        raise ValueError(f"levels = {levels}: {spec.name} has {spec.n_codebooks} levels")
    kept = torch.arange(spec.n_codebooks) < levels
    return kept[:, None].expand(-1, spec.n_frames(n_samples)).clone()


def frame_starts(spec: CodecSpec, n_samples: int) -> Tensor:
    """Return the start of each frame's audio in seconds, float64 [T]. Chunks may overlap."""
    n_frames = spec.n_frames(n_samples)
    if not spec.chunk_length:
        return torch.arange(n_frames).double() * spec.hop_length / spec.sample_rate
    per_chunk = spec.chunk_length // spec.hop_length
    chunk, frame = np.divmod(np.arange(n_frames), per_chunk)
    samples = chunk * spec.chunk_stride + frame * spec.hop_length
    return torch.from_numpy(samples / spec.sample_rate)
