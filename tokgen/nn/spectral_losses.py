"""Losses between spectra of waveforms."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.audio.torchaudio_shim import import_torchaudio

__all__ = ["MELS", "MEL_FLOOR", "WINDOWS", "MelPower", "MultiScaleMel", "SpectralDistance"]

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
        """Log10 mel magnitudes [B * C, frames, mels] of a waveform [B, C, N]."""
        spectrum = torch.stft(
            waveform.flatten(0, 1).float(),
            window,
            window // 4,
            window=self.get_buffer(f"window_{window}"),
            return_complex=True,
        )
        power = spectrum.real.square() + spectrum.imag.square()
        magnitude = power.clamp(min=1e-12).sqrt().mT
        return (magnitude @ self.get_buffer(f"bank_{window}")).clamp(min=MEL_FLOOR).log10()

    def forward(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """Distance of waveforms [B, C, N] as a scalar."""
        n = len(self.windows)
        keep = self.scales_per_step if self.training else n
        chosen = torch.randperm(n)[:keep].tolist() if keep < n else range(n)
        total = estimate.new_zeros(())
        for i in chosen:
            window = self.windows[i]
            found, target = self.log_mel(estimate, window), self.log_mel(reference, window)
            total = total + F.l1_loss(found, target)
        return total * (n / keep)


class MelPower(nn.Module):
    """EnCodec's distance between mel spectra: L1 of the powers plus L2 of their logarithms.

    As in AudioCraft, L2 is the mean squared difference of log10(1e-5 + power), the bands are HTK's,
    and the two distances are averaged over the windows.

    Args:
        sample_rate: Hz.
        windows: STFT window lengths in samples; the hop is a quarter of each.
        n_mels: number of bands. Short windows have bands without bins, which stay silent.
        f_min: lower edge of the bands in Hz. The paper has 0, AudioCraft 64.
    """

    def __init__(
        self,
        sample_rate: int,
        windows: tuple[int, ...] = WINDOWS,
        n_mels: int = 64,
        f_min: float = 0.0,
    ) -> None:
        super().__init__()
        self.windows = windows
        melscale_fbanks = import_torchaudio().functional.melscale_fbanks
        for size in windows:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "At least one mel filterbank")
                bank = melscale_fbanks(size // 2 + 1, f_min, sample_rate / 2, n_mels, sample_rate)
            hann = torch.hann_window(size)
            self.register_buffer(f"bank_{size}", bank, persistent=False)
            window = hann / hann.square().sum().sqrt()
            self.register_buffer(f"window_{size}", window, persistent=False)

    def power(self, waveform: Tensor, size: int) -> Tensor:
        """Mel power [B * C, frames, mels] of a waveform [B, C, N], with reflect padding."""
        hop = size // 4
        edge = (size - hop) // 2
        x = F.pad(waveform.flatten(0, 1).float(), (edge, edge), mode="reflect")
        x = F.pad(x, (0, (size - x.shape[-1]) % hop))  # whole frames
        window = self.get_buffer(f"window_{size}")
        spectrum = torch.stft(x, size, hop, window=window, center=False, return_complex=True)
        power = spectrum.real.square() + spectrum.imag.square()
        return power.mT @ self.get_buffer(f"bank_{size}")

    def forward(self, estimate: Tensor, reference: Tensor) -> Tensor:
        """Distance of waveforms [B, C, N] as a scalar."""
        total = estimate.new_zeros((), dtype=torch.float32)
        for size in self.windows:
            found, target = self.power(estimate, size), self.power(reference, size)
            total = total + F.l1_loss(found, target)
            total = total + F.mse_loss((MEL_FLOOR + found).log10(), (MEL_FLOOR + target).log10())
        return total / (2 * len(self.windows))


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
        """Distance of waveforms [B, C, N] as a scalar."""
        total = estimate.new_zeros(())
        for size in self.windows:
            window = self.get_buffer(f"window_{size}")
            a, b = (
                torch.view_as_real(
                    torch.stft(w, size, size // 4, window=window, return_complex=True)
                )
                for w in (estimate.flatten(0, 1).float(), reference.flatten(0, 1).float())
            )
            level = b.abs().mean() + 1e-3  # so that silence does not dominate
            total = total + (a - b).abs().mean() / level
        return total
