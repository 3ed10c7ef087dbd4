"""Shifts of a clip between passes: the place of the clip in the codec's frames.

A codec that is stable only while its frames begin at the same samples of the audio drifts again
after a cut or an edit. So the clip is moved before each pass by a known number of samples, and
moved back after it. It moves into zeros that are cut off again, so no sample is lost.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from tokgen.codec.spec import CodecSpec, WaveformSpec

__all__ = ["FRAME_SECONDS", "Shift", "check_shift", "frame_of", "place_clip", "say_shift"]

Shift = int | Literal["random"]
FRAME_SECONDS = 0.02  # frame of a waveform codec that does not state its own


def check_shift(shift: Shift) -> None:
    """Raise ValueError unless a shift is a whole number of samples or "random"."""
    if shift != "random" and (not isinstance(shift, int) or isinstance(shift, bool)):
        raise ValueError(f"shift = {shift!r}: must be a whole number of samples, or 'random'")


def say_shift(shift: Shift) -> str:
    """Return a shift as text, "" for none."""
    if not shift:
        return ""
    by = "random shifts" if shift == "random" else f"{shift:+d} samples"
    return f"moved by {by} between passes"


def frame_of(spec: CodecSpec | WaveformSpec) -> int:
    """Return samples per frame, or `FRAME_SECONDS` if a waveform codec does not state them."""
    return spec.hop_length or max(2, round(FRAME_SECONDS * spec.sample_rate))


def place_clip(
    shift: Shift, passes: int, frame: int, *, seed: int = 0, clip: str = ""
) -> list[int]:
    """Return where in the first frame the clip begins, for each pass.

    Pass 1 begins at sample 0. Every later pass begins `shift` samples after the one before, modulo
    a frame, since frames repeat. A random shift is uniform over ±1 to ±(frame - 1) samples. It
    depends only on `seed`, the clip's id and the pass.

    Args:
        shift: samples between passes, negative for earlier, or "random"; 0 does not move the clip.
        frame: samples per frame.
        clip: id of the clip.
    Returns:
        samples in 0..frame - 1, one for each pass.
    Raises:
        ValueError: the shift is neither a whole number nor "random", or it is a multiple of a
            frame, which moves nothing.
    """
    check_shift(shift)
    if shift and (frame == 1 or (shift != "random" and shift % frame == 0)):
        raise ValueError(
            f"shift = {shift}: whole frames of {frame} samples move nothing; choose another shift"
        )
    places = [0]
    for n in range(2, passes + 1):
        step = shift if isinstance(shift, int) else _draw(frame, f"{seed} {clip} {n}")
        places.append((places[-1] + step) % frame)
    return places


def _draw(frame: int, key: str) -> int:
    """Draw a shift of ±1 to ±(frame - 1) samples."""
    number = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") % (2 * frame - 2)
    return number + 1 if number < frame - 1 else frame - 2 - number
