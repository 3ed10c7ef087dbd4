"""Prepare audio for models of speech: one channel at 16 kHz. Stereo is mixed to its mean."""

from __future__ import annotations

import torch
from torch import Tensor

from tokgen.audio.resampling import resample

__all__ = ["RATE", "at_16k", "mix", "why_unusable"]

RATE = 16_000


def at_16k(waveform: Tensor, sample_rate: int) -> Tensor | None:
    """Resample a waveform [N] or [C, N] to float32 [N'] at 16 kHz on the CPU.

    Returns:
        None if there are no samples, or NaN or infinity among them.
    """
    if why_unusable(waveform):
        return None
    return resample(mix(waveform.detach()).cpu(), sample_rate, RATE)


def mix(waveform: Tensor) -> Tensor:
    """Return the mean float32 [N] of the channels of a waveform [N] or [C, N]."""
    return torch.atleast_2d(waveform.float()).flatten(0, -2).mean(0)


def why_unusable(waveform: Tensor) -> str:
    """Return why a waveform cannot be measured: no samples, or NaN or infinity; "" if it can."""
    if waveform.numel() == 0:
        return "no samples"
    return "" if torch.isfinite(waveform.detach().float()).all() else "NaN or infinite samples"
