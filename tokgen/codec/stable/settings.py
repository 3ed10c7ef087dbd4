"""Settings of stable decoding, and what it reached."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from tokgen.audio.bitrates import LOSSY_KBPS, check_kbps
from tokgen.runs.checks import check_least, check_positive, closest

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TRANSPORTS", "Reached", "StableAudio", "StableDecoding", "parse_transport"]

TRANSPORTS = ("int16", "dither", "gain", "resample", *LOSSY_KBPS)
_VALUES = {"gain": 1.0, "resample": 48000.0, "mp3": 128.0, "opus": 64.0}  # without a suffix


@dataclass(frozen=True)
class StableDecoding:
    """How codes are decoded so that they come back when the audio is encoded again.

    Attributes:
        steps: most steps of the search over each window, and of each repair.
        rate: largest change of a frequency bin in one step, as a share of the level around it.
        margin: by how much a code must be nearer than any other, in squared distance, as a share of
            the mean squared distance between neighbouring rows of its codebook.
        temperature: of the softmax over the rows of a codebook, in the same unit.
        robust_to: what the codes must survive: int16, dither, gain:DB, resample:HZ,
            mp3:KBPS, opus:KBPS. With int16 or dither, the audio is returned in 16-bit steps.
        repairs: how often the frames whose codes are still wrong are searched again.
        window_seconds: length of a window.
        seed: of random transports.
    """

    steps: int = 40
    rate: float = 0.02
    margin: float = 0.2
    temperature: float = 0.06
    robust_to: tuple[str, ...] = ("int16",)
    repairs: int = 4
    window_seconds: float = 8.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_least(self, steps=0, repairs=0, margin=0)
        check_positive(self, "rate", "temperature", "window_seconds")
        if isinstance(self.robust_to, str):
            raise ValueError(f"robust_to = {self.robust_to!r}: pass a tuple, ({self.robust_to!r},)")
        for name in self.robust_to:
            parse_transport(name)


def parse_transport(name: str) -> tuple[str, float]:
    """Return the kind and the value of a transport such as "mp3:128".

    Raises:
        ValueError: it is unknown, or its value is out of range.
    """
    kind, colon, text = name.partition(":")
    if kind not in TRANSPORTS:
        raise ValueError(
            f"transport {name!r}{closest(kind, TRANSPORTS)}: known are {', '.join(TRANSPORTS)}"
        )
    if kind not in _VALUES:
        if colon:
            raise ValueError(f"transport {name!r}: {kind} takes no value")
        return kind, 0.0
    try:
        value = float(text) if colon else _VALUES[kind]
    except ValueError:
        raise ValueError(f"transport {name!r}: write a number after the colon") from None
    if kind in LOSSY_KBPS:
        check_kbps(kind, value)
    if kind == "gain" and not 0 <= value <= 20:
        raise ValueError(f"transport {name!r}: the gain must be 0 to 20 dB")
    if kind == "resample" and not (1000 <= value <= 768_000 and value == math.floor(value)):
        raise ValueError(f"transport {name!r}: the rate must be a whole number, 1000 to 768000 Hz")
    return kind, value


@dataclass(frozen=True)
class Reached:
    """Result of a search, for each item of a batch.

    Attributes:
        kept: share of codes that come back when the audio is encoded, [B].
        steps: steps of the search and its repairs, averaged over frames, [B].
        snr_db: level of the plainly decoded audio over that of the change in dB, [B]; infinite if
            nothing was changed. Rounding to 16 bits counts as a change.
        survived: the same as `kept`, after each transport of `robust_to`.
    """

    kept: Tensor
    steps: Tensor
    snr_db: Tensor
    survived: dict[str, Tensor] = field(default_factory=dict)


class StableAudio(NamedTuple):
    """Result of stable decoding: waveform float32 [B, 1, N], and what was reached."""

    waveform: Tensor
    reached: Reached
