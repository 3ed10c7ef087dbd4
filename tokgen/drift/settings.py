"""Settings of a drift measurement, the same for every verb and recipe."""

from __future__ import annotations

from dataclasses import dataclass

from tokgen.runs.checks import check_least

__all__ = ["DriftSettings"]


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """Settings of a drift measurement.

    Attributes:
        passes: number of encodings.
        clip_seconds: cut clips to this length; 0 keeps them whole.
        clips: measure only the first clips, this many; all by default.
        match_level: bring every output to the level of the original, as the paper does.
        phase: also measure how many codes match after shifts of up to 2 ms.
        samples: clips to write as audio.
    """

    passes: int = 25
    clip_seconds: float = 5.0
    clips: int | None = None
    match_level: bool = False
    phase: bool = False
    samples: int = 2

    def __post_init__(self) -> None:
        check_least(self, passes=2, clip_seconds=0, clips=1, samples=0)
