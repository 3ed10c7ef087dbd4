"""The depth of sounds of variable bitrate: levels of each frame, as a curve under a spectrogram."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from tokgen.codec.depth_files import depth_path
from tokgen.report.json_files import items, number, parse_json

__all__ = ["MAX_FRAMES", "DepthCurve", "read_depth"]

MAX_FRAMES = 200_000
_MOST = 1024  # levels


@dataclass(frozen=True)
class DepthCurve:
    """The number of levels of each frame of a sound.

    Attributes:
        depth: levels of each frame.
        n_codebooks: most levels of the codec.
        frame_rate: frames per second.
    """

    depth: list[int]
    n_codebooks: int
    frame_rate: float

    @property
    def mean(self) -> float:
        """Mean levels of a frame."""
        return sum(self.depth) / len(self.depth)

    @property
    def path(self) -> str:
        """The filled curve as an SVG path: a unit per frame and level, level 0 at the bottom."""
        top, at, parts = self.n_codebooks, 0, [f"M0 {self.n_codebooks}"]
        for levels, run in groupby(self.depth):
            at += len(list(run))
            parts.append(f"V{top - levels}H{at}")
        return "".join([*parts, f"V{top}Z"])

    def width(self, seconds: float) -> float:
        """Return the width of the curve in % of a picture of some seconds."""
        return round(100 * len(self.depth) / self.frame_rate / seconds, 3) if seconds else 0.0

    def as_dict(self) -> dict[str, Any]:
        """Return the data for the script of the page."""
        return dict(vars(self))


def read_depth(audio: Path) -> DepthCurve | None:
    """Read the depth beside an audio file; None if it has none.

    Raises:
        ValueError: the file is damaged.
    """
    return parse_json(depth_path(audio), _parse)


def _parse(content: dict[str, Any]) -> DepthCurve:
    depth = [number(value) for value in items(content.get("depth"), "depth")]
    most, rate = number(content["n_codebooks"]), number(content["frame_rate"])
    if not (1 <= most <= _MOST and most.is_integer() and 0 < rate < math.inf):
        raise ValueError(f"n_codebooks = {most}, frame_rate = {rate}")
    if not 0 < len(depth) <= MAX_FRAMES:
        raise ValueError(f"{len(depth)} frames: expected 1 to {MAX_FRAMES}")
    if not all(0 <= value <= most and value.is_integer() for value in depth):
        raise ValueError(f"depth: expected whole numbers of 0 to {most:g}")
    return DepthCurve([int(value) for value in depth], int(most), rate)
