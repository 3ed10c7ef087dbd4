"""Augmentation of training audio: random level and phase."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["K_FILTERS", "K_RATE", "QUIET_LUFS", "augment", "loudness_lufs"]

# K-weighting of ITU-R BS.1770-4, tables 1 and 2: (numerator, denominator) at 48 kHz.
K_RATE = 48_000
K_FILTERS = (
    (
        (1.53512485958697, -2.69169618940638, 1.19839281085285),
        (1.0, -1.69065929318241, 0.73248077421585),
    ),
    ((1.0, -2.0, 1.0), (1.0, -1.99004745483398, 0.99007225036621)),
)
QUIET_LUFS = -60.0  # quieter audio counts as silence and keeps its level


def augment(
    waveform: Tensor,
    sample_rate: int,
    *,
    loudness: float | None,
    gain_db: float,
    phase: bool,
    generator: torch.Generator,
) -> Tensor:
    """Change the level and the phase of audio at random, as DAC's recipe does.

    Args:
        waveform: [B, C, N]; the channels of an item change alike.
        sample_rate: Hz.
        loudness: level in LUFS that each item is first brought to; None leaves the level.
        gain_db: the level then changes by U(-gain_db, gain_db) dB, at most up to full scale.
        phase: rotate all frequencies of an item by one angle U(-pi, pi).
        generator: on the CPU.
    Returns:
        [B, C, N].
    """
    batch = len(waveform)
    if phase:
        angle = (torch.rand(batch, 1, 1, generator=generator) * 2 - 1) * torch.pi
        spectrum = torch.fft.rfft(waveform) * torch.polar(torch.ones_like(angle), angle)
        waveform = torch.fft.irfft(spectrum, n=waveform.shape[-1])
    gain = (torch.rand(batch, 1, 1, generator=generator) * 2 - 1) * gain_db
    if loudness is not None:
        measured = loudness_lufs(waveform, sample_rate)[:, None, None]
        gain = gain + torch.where(measured > QUIET_LUFS, loudness - measured, 0.0)
    waveform = waveform * 10 ** (gain / 20)
    return waveform / waveform.abs().amax((1, 2), keepdim=True).clamp(min=1.0)


def loudness_lufs(waveform: Tensor, sample_rate: int) -> Tensor:
    """Loudness of each item by ITU-R BS.1770, without gating.

    Crops of less than a second are too short for the standard's gates. The two K-weighting filters
    are applied in the frequency domain.

    Args:
        waveform: [B, C, N]; the powers of the channels add up.
        sample_rate: Hz.
    Returns:
        [B] in LUFS; -inf for digital silence.
    """
    n = waveform.shape[-1]
    turn = 2 * torch.pi * torch.fft.rfftfreq(n, 1 / sample_rate) / K_RATE
    delay = torch.polar(torch.ones_like(turn), -turn)
    weight = torch.ones_like(turn)
    for b, a in K_FILTERS:
        top = b[0] + b[1] * delay + b[2] * delay**2
        bottom = a[0] + a[1] * delay + a[2] * delay**2
        weight = weight * (top.abs() / bottom.abs()) ** 2
    power = (torch.fft.rfft(waveform).abs() ** 2).sum(1) * weight
    power[:, 1 : (n + 1) // 2] *= 2  # negative frequencies
    return -0.691 + 10 * (power.sum(-1) / n**2).log10()
