"""Prepare audio for models of speech: one channel at 16 kHz."""

from __future__ import annotations

import torch
from torch import Tensor

from tokgen.audio.resampling import resample

__all__ = ["RATE", "at_16k", "why_unusable"]

RATE = 16_000


def at_16k(waveform: Tensor, sample_rate: int) -> Tensor | None:
    """Resample a waveform [N] or [1, N] to float32 [N'] at 16 kHz on the CPU.

    Returns:
        None if there are no samples, or NaN or infinity among them.
    """
    if why_unusable(waveform):
        return None
    return resample(waveform.detach().flatten().float().cpu(), sample_rate, RATE)


def why_unusable(waveform: Tensor) -> str:
    """Return why a waveform cannot be measured: no samples, or NaN or infinity; "" if it can."""
    if waveform.numel() == 0:
        return "no samples"
    return "" if torch.isfinite(waveform.detach().float()).all() else "NaN or infinite samples"
