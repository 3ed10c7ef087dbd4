"""Prepare audio for models of speech: one channel at 16 kHz."""

from __future__ import annotations

import torch
from torch import Tensor

from tokgen.audio.files import resample

__all__ = ["RATE", "at_16k"]

RATE = 16_000


def at_16k(waveform: Tensor, sample_rate: int) -> Tensor | None:
    """Resample a waveform [N] or [1, N] to float32 [N'] at 16 kHz on the CPU.

    Returns:
        None if there are no samples, or NaN or infinity among them.
    """
    audio = waveform.detach().flatten().float().cpu()
    if len(audio) == 0 or not torch.isfinite(audio).all():
        return None
    return resample(audio, sample_rate, RATE)
