"""Settings of a drift measurement, the same for every verb and recipe."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tokgen.runs.checks import check_least

__all__ = ["DriftSettings", "check_protocol"]


@dataclass(frozen=True, kw_only=True)
class DriftSettings:
    """Settings of a drift measurement.

    Attributes:
        protocol: "first" measures the first seconds of every clip. "paper" measures 500 random
            excerpts of 1 s, as Code Drift does.
        passes: number of encodings.
        clip_seconds: cut clips to this length; 0 keeps them whole. By default 5, and 1 for the
            protocol "paper".
        clips: measure only the first clips, this many; all by default. For the protocol "paper",
            the number of excerpts, 500 by default.
        seed: of excerpts and random shifts.
        match_level: bring every output to the level of the original, as the paper does;
            --match_level false leaves levels as they come.
        shift: move the audio by this many samples between passes, and back for scoring; "random"
            draws up to a frame in both directions. 0 does not move it.
        stable: also measure every codec with stable decoding, in rows of their own.
        grid: auto also measures every codec with its frame grid found before each pass; with
            --stable, both together.
        phase: also measure how many codes match after shifts of up to 2 ms.
        samples: clips to write as audio.
    """

    protocol: Literal["first", "paper"] = "first"
    passes: int = 25
    clip_seconds: float | None = None
    clips: int | None = None
    seed: int = 0
    match_level: bool = True
    shift: int | Literal["random"] = 0
    stable: bool = False
    grid: Literal["auto"] | None = None
    phase: bool = False
    samples: int = 2

    def __post_init__(self) -> None:
        check_least(self, passes=2, clip_seconds=0, clips=1, samples=0)
        check_protocol(self.protocol, self.clip_seconds, self.match_level)


def check_protocol(protocol: str, clip_seconds: float | None, match_level: bool) -> None:
    """Raise ValueError for an unknown protocol, or settings that the paper's does not have."""
    if protocol not in ("first", "paper"):
        raise ValueError(f"protocol {protocol!r}: must be first or paper")
    if protocol != "paper":
        return
    if not match_level:
        raise ValueError(
            "match_level is false, but protocol paper matches levels: omit one of them"
        )
    if clip_seconds == 0:
        raise ValueError("clip_seconds is 0, but protocol paper cuts excerpts: give their length")
