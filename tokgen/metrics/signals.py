"""What every judge of speech is given: one channel at 16 kHz, never something that is not audio."""

from __future__ import annotations

import torch
from torch import Tensor

from tokgen.audio.files import resample

RATE = 16_000


def at_16k(waveform: Tensor, sample_rate: int) -> Tensor | None:
    """waveform [N] or [1, N] -> float32 [N'] on the CPU at 16 kHz.

    Returns:
        None where there is nothing to judge: no samples, or NaN or infinity among them.
    """
    audio = waveform.detach().flatten().float().cpu()
    if len(audio) == 0 or not torch.isfinite(audio).all():
        return None
    return resample(audio, sample_rate, RATE)
