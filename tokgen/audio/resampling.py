"""Resample audio with soxr, whole or block by block."""

from __future__ import annotations

import numpy as np
import soxr
import torch
from torch import Tensor

__all__ = ["RATES", "Resampler", "check_rates", "resample"]

RATES = (1_000, 768_000)  # Hz; a header with any other rate is damaged


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample a waveform [..., N] with soxr (HQ); rates are in Hz.

    Returns:
        float32 [..., ceil(N * to_rate / from_rate)] on the same device.
    """
    flat = waveform.detach().float().reshape(-1, waveform.shape[-1]).cpu().numpy()
    rows = []
    for row in flat:
        resampler = Resampler(from_rate, to_rate)
        rows.append(np.concatenate([resampler.add(row), resampler.finish()]))
    n_out = -(-waveform.shape[-1] * to_rate // from_rate)
    out = torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, n_out)
    return out.reshape(*waveform.shape[:-1], n_out).to(waveform.device)


def check_rates(*rates: int) -> None:
    """Raise ValueError if a rate in Hz is outside `RATES`."""
    for rate in rates:
        if not RATES[0] <= rate <= RATES[1]:
            raise ValueError(f"sample rate {rate} Hz: must be {RATES[0]} to {RATES[1]} Hz")


class Resampler:
    """Resamples blocks [n] with soxr, to ceil(N * to_rate / from_rate) samples in all.

    Args:
        from_rate, to_rate: Hz.
        channels: channels of the blocks, which are [n, channels] if there are several.
    Raises:
        ValueError: a rate outside `RATES`.
    """

    def __init__(self, from_rate: int, to_rate: int, channels: int = 1) -> None:
        check_rates(from_rate, to_rate)
        self.from_rate, self.to_rate = from_rate, to_rate
        self.n_in = self.n_out = 0
        self.stream = None
        if from_rate != to_rate:
            self.stream = soxr.ResampleStream(from_rate, to_rate, channels, dtype="float32")
        self._empty = np.zeros(0 if channels == 1 else (0, channels), np.float32)

    def add(self, block: np.ndarray) -> np.ndarray:
        """Resample a block; part of the output may come with later blocks."""
        self.n_in += len(block)
        out = block if self.stream is None else self.stream.resample_chunk(block)
        self.n_out += len(out)
        return out

    def finish(self) -> np.ndarray:
        """Return the rest of the output."""
        out = self._empty
        if self.stream is not None:
            out = self.stream.resample_chunk(out, last=True)
        missing = -(-self.n_in * self.to_rate // self.from_rate) - self.n_out
        padding = [(0, max(missing - len(out), 0)), (0, 0)][: out.ndim]
        return np.pad(out[: max(missing, 0)], padding)
