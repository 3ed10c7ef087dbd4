"""Losses between spectra of waveforms."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.audio.torchaudio_shim import import_torchaudio

__all__ = ["MELS", "MEL_FLOOR", "WINDOWS", "MultiScaleMel", "SpectralDistance"]

WINDOWS = (32, 64, 128, 256, 512, 1024, 2048)  # samples
MELS = (5, 10, 20, 40, 80, 160, 320)
MEL_FLOOR = 1e-5  # lower limit of the mel magnitudes


class MultiScaleMel(nn.Module):
    """L1 distance between log10 mel spectra, summed over several window lengths.

    Args:
        sample_rate: Hz.
        windows: STFT window lengths in samples; the hop is a quarter of each.
        mels: number of mel bands for each window.
        scales_per_step: in training mode, number of windows to draw at random for each call, which
            saves time. The sum is scaled up to stay unbiased. None uses all.
    """

    def __init__(
        self,
        sample_rate: int,
        windows: tuple[int, ...] = WINDOWS,
        mels: tuple[int, ...] = MELS,
        scales_per_step: int | None = None,
    ) -> None:
        super().__init__()
        if len(windows) != len(mels):
            raise ValueError(f"{len(windows)} windows but {len(mels)} mel counts: give one each")
        self.windows = windows
        self.scales_per_step = scales_per_step or len(windows)
        melscale_fbanks = import_torchaudio().functional.melscale_fbanks
        for window, n_mels in zip(windows, mels, strict=True):
            with warnings.catch_warnings():  # at high rates, short windows have bands without bins
                warnings.filterwarnings("ignore", "At least one mel filterbank")
                bank = melscale_fbanks(
                    window // 2 + 1, 0.0, sample_rate / 2, n_mels, sample_rate, "slaney", "slaney"
                )
            self.register_buffer(f"bank_{window}", bank, persistent=False)
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)

    def log_mel(self, waveform: Tensor, window: int) -> Tensor:
        """Log10 mel magnitudes [B, frames, mels] of a waveform [B, 1, N]."""
        spectrum = torch.stft(
            waveform[:, 0].float(),
            window,
            window // 4,
            window=self.get_buffer(f"window_{window}"),
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        magnitude = power.clamp(min=1e-12).sqrt().mT
        return (magnitude @ self.get_buffer(f"bank_{window}")).clamp(min=MEL_FLOOR).log10()

    def forward(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """Distance of waveforms [B, 1, N] as a scalar."""
        n = len(self.windows)
        keep = self.scales_per_step if self.training else n
        chosen = torch.randperm(n)[:keep].tolist() if keep < n else range(n)
        total = estimate.new_zeros(())
        for i in chosen:
            window = self.windows[i]
            found, target = self.log_mel(estimate, window), self.log_mel(reference, window)
            total = total + F.l1_loss(found, target)
        return total * (n / keep)


class SpectralDistance(nn.Module):
    """Relative L1 distance between complex spectra, summed over several window lengths.

    Mel losses ignore phase. In training without discriminators, this loss aligns it.
    """

    windows = (512, 1024)  # samples; the hop is a quarter of each

    def __init__(self) -> None:
        super().__init__()
        for window in self.windows:
            self.register_buffer(f"window_{window}", torch.hann_window(window), persistent=False)

    def forward(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """Distance of waveforms [B, 1, N] as a scalar."""
        total = estimate.new_zeros(())
        for size in self.windows:
            window = self.get_buffer(f"window_{size}")
            a, b = (
                torch.view_as_real(
                    torch.stft(w[:, 0].float(), size, size // 4, window=window, return_complex=True)
                )
                for w in (estimate, reference)
            )
            level = b.abs().mean() + 1e-3  # so that silence does not dominate
            total = total + (a - b).abs().mean() / level
        return total
