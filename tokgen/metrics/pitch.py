"""Errors of fundamental frequency (F0) and of voicing between a clip and its reconstruction.

F0 comes from WORLD (Morise, Yokomori and Ozawa 2016) through pyworld: DIO, refined by StoneMask.
Level, offset and padding do not affect it. WORLD's other tracker, Harvest, is not used: it marks
nearly every frame of speech as voiced.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tokgen.extras import require_legacy
from tokgen.metrics.signals import RATE, at_16k

F0_MIN, F0_MAX = 60.0, 500.0  # Hz
HOP_SECONDS = 0.01
MIN_SECONDS = 0.2  # DIO finds no voice in shorter clips
GROSS = 0.2  # gross errors exceed this share of the reference's F0
BACKEND = "pyworld (DIO and StoneMask, 60 to 500 Hz, hop 10 ms, 16 kHz)"


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
    """Track the F0 of one voice, every 10 ms from the first sample on.

    Args:
        waveform: [N] or [1, N].
        sample_rate: Hz.
    Returns:
        Hz [T] float64, 0 in unvoiced frames. None if the clip is shorter than `MIN_SECONDS` or
        contains NaN or infinity.
    """
    audio = at_16k(waveform, sample_rate)
    if audio is None or len(audio) < MIN_SECONDS * RATE:
        return None
    world = require_legacy("pyworld")
    samples = (audio.double() - audio.double().mean()).numpy()  # an offset disturbs StoneMask
    f0, times = world.dio(
        samples, RATE, f0_floor=F0_MIN, f0_ceil=F0_MAX, frame_period=1000 * HOP_SECONDS
    )
    return torch.from_numpy(world.stonemask(samples, f0, times, RATE))


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
