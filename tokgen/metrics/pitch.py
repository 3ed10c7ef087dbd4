"""Errors of fundamental frequency (F0) and of voicing between a clip and its reconstruction.

F0 comes from SwiftF0 (Nieradzik 2025, arXiv 2508.18440), a network of 14,000 parameters in the
package swift-f0, with candidates from 60 to 500 Hz. A frame of 16 ms is voiced if the network's
confidence is at least 0.5. Level and offset do not affect the track: every clip is centred and set
to one level. `docs/dependencies.md` compares SwiftF0 with WORLD and other trackers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
from torch import Tensor

from tokgen.extras import require
from tokgen.metrics.signals import RATE, at_16k, why_unusable

__all__ = [
    "BACKEND",
    "F0_MAX",
    "F0_MIN",
    "GROSS",
    "HOP_SECONDS",
    "LEVEL",
    "MIN_SECONDS",
    "SILENCE",
    "VOICED",
    "PitchErrors",
    "pitch_errors",
    "track_pitch",
    "why_no_track",
]

F0_MIN, F0_MAX = 60.0, 500.0  # Hz
HOP_SECONDS = 0.016
VOICED = 0.5  # confidence, as SwiftF0 recommends
LEVEL = 0.1  # RMS of every clip before tracking
SILENCE = 1e-6  # RMS; below it a clip keeps its level
MIN_SECONDS = 0.2  # the network sees 176 ms on either side of a frame
GROSS = 0.2  # gross errors exceed this share of the reference's F0
BACKEND = "swift-f0 (confidence 0.5, 60 to 500 Hz, hop 16 ms, 16 kHz)"


@dataclass(frozen=True)
class PitchErrors:
    """Errors of an F0 track compared with a reference; lower is better.

    Attributes:
        f0_rmse_cents: root mean square of 1200 log2(estimate / reference) over frames voiced in
            both, including gross errors: an octave error in one frame weighs as much as a semitone
            error in 144 frames. NaN if no frame is voiced in both.
        gross_error: share of the frames voiced in both whose F0 is off by more than 20 %: the
            gross pitch error, GPE (Nakatani et al. 2008). NaN if no frame is voiced in both.
        voicing_error: share of all frames whose voicing differs: the voicing decision error,
            VDE (Nakatani et al. 2008; Chu and Alwan 2009). It is also defined for silence.
    """

    f0_rmse_cents: float
    gross_error: float
    voicing_error: float


def track_pitch(waveform: Tensor, sample_rate: int) -> Tensor | None:
    """Track the F0 of one voice, every 16 ms from the first sample on.

    Args:
        waveform: [N] or [C, N].
        sample_rate: Hz.
    Returns:
        Hz [T] float64, 0 in unvoiced frames. None if the clip is shorter than `MIN_SECONDS` or
        contains NaN or infinity.
    Raises:
        ModuleNotFoundError: swift-f0 is missing; the error names the extra.
    """
    audio = at_16k(waveform, sample_rate)
    if audio is None or len(audio) < MIN_SECONDS * RATE:
        return None
    audio = audio - audio.mean()
    rms = audio.square().mean().sqrt()
    if rms > SILENCE:
        audio = audio * (LEVEL / rms)
    found = _detector().detect(audio.numpy(), RATE, F0_MIN, F0_MAX)
    f0, confidence = torch.from_numpy(found.pitch_hz), torch.from_numpy(found.confidence)
    return torch.where(confidence >= VOICED, f0, 0.0)


def why_no_track(waveform: Tensor, sample_rate: int) -> str:
    """Return why `track_pitch` returns None for a clip; "" if it does not."""
    short = waveform.numel() < MIN_SECONDS * sample_rate
    return why_unusable(waveform) or (f"shorter than {MIN_SECONDS:g} s" if short else "")


@cache
def _detector() -> Any:
    """One thread: a track does not depend on the machine, and the detector survives a fork."""
    return require("swift_f0").SwiftF0(threads=1)


def pitch_errors(reference: Tensor | None, estimate: Tensor | None) -> PitchErrors:
    """Compare tracks of `track_pitch` of two clips; every error is NaN if a track is None.

    Raises:
        ValueError: the tracks have different lengths.
    """
    if reference is None or estimate is None:
        return PitchErrors(math.nan, math.nan, math.nan)
    if reference.shape != estimate.shape:
        raise ValueError(
            f"tracks of {len(reference)} and {len(estimate)} frames: "
            "trim or pad the clips to equal length first"
        )
    voicing_error = float(((reference > 0) != (estimate > 0)).double().mean())
    both = (reference > 0) & (estimate > 0)
    if not both.any():
        return PitchErrors(math.nan, math.nan, voicing_error)
    ratio = estimate[both] / reference[both]
    cents = 1200 * torch.log2(ratio)
    return PitchErrors(
        f0_rmse_cents=float(cents.square().mean().sqrt()),
        gross_error=float(((ratio - 1).abs() > GROSS).double().mean()),
        voicing_error=voicing_error,
    )
