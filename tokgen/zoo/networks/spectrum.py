"""Spectrum of the STFT codec: waveform to features and back."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.zoo.networks.causal import causal_window

__all__ = ["FLOOR", "Spectrum"]

FLOOR = 1e-4  # magnitudes below this count as silence, because their phase is noise


class Spectrum(nn.Module):
    """Converts between waveform and spectral features, with periodic Hann windows.

    Args:
        causal: use `causal_window`.
    """

    window: Tensor
    level_mean: Tensor
    level_std: Tensor

    def __init__(self, n_fft: int, hop_length: int, *, causal: bool = False) -> None:
        super().__init__()
        if n_fft % hop_length or n_fft < 2 * hop_length:
            raise ValueError(
                f"n_fft = {n_fft}: must be a multiple of hop_length = {hop_length}, at least twice"
            )
        self.n_fft, self.hop_length = n_fft, hop_length
        self.edge = (n_fft - hop_length) // 2
        self.reach = -(-self.edge // hop_length)  # frames that overlap on either side
        window = causal_window(n_fft) if causal else torch.hann_window(n_fft)
        self.register_buffer("window", window, persistent=False)
        self.register_buffer("level_mean", torch.full((n_fft // 2 + 1,), -4.0))
        self.register_buffer("level_std", torch.full((n_fft // 2 + 1,), 2.0))

    @torch.no_grad()
    def fit_levels(self, waveform: Tensor) -> None:
        """Set the mean and deviation of the log magnitude per bin from audio [B, 1, T*hop].

        Without this, training first has to learn how loud each bin is.
        """
        levels = self.analyse(waveform)[..., : self.n_fft // 2 + 1].flatten(0, 1)
        levels = levels * self.level_std + self.level_mean
        self.level_mean.copy_(levels.mean(0))
        self.level_std.copy_(levels.std(0).clamp(min=0.1))

    def analyse(self, waveform: Tensor) -> Tensor:
        """[B, 1, T*hop] -> standardised log magnitude, cos, sin: [B, T, 3 * (n_fft/2 + 1)]."""
        return self.analyse_padded(
            F.pad(waveform, (self.edge, self.n_fft - self.hop_length - self.edge))
        )

    def analyse_padded(self, waveform: Tensor) -> Tensor:
        """`analyse` for audio that includes the edges of the first and of the last frame."""
        frames = waveform[:, 0].unfold(-1, self.n_fft, self.hop_length) * self.window
        spectrum = torch.fft.rfft(frames.roll(self.n_fft // 2, -1), norm="ortho")
        magnitude = spectrum.real.square().add(spectrum.imag.square()).add(FLOOR**2).sqrt()
        level = (magnitude.log() - self.level_mean) / self.level_std
        return torch.cat([level, spectrum.real / magnitude, spectrum.imag / magnitude], dim=-1)

    def synthesise(self, features: Tensor) -> Tensor:
        """Features of `analyse`, with phase vectors of any length -> [B, 1, T*hop]."""
        frames = self.frames(features)
        envelope = self._overlap_add(self.window.square().expand(1, frames.shape[1], -1))
        return (self._overlap_add(frames) / envelope)[:, None]

    def frames(self, features: Tensor) -> Tensor:
        """Features as for `synthesise` -> windowed frames of audio [B, T, n_fft]."""
        level, real, imag = features.chunk(3, dim=-1)
        log_magnitude = level * self.level_std + self.level_mean
        length = (real.square() + imag.square() + 1e-6).sqrt()
        scale = log_magnitude.clamp(max=6.0).exp() / length
        spectrum = torch.complex(scale * real, scale * imag)
        frames = torch.fft.irfft(spectrum, n=self.n_fft, norm="ortho")
        return frames.roll(self.n_fft // 2, -1) * self.window

    def overlap(
        self, frames: Tensor, before: Tensor | None, first: int, n_frames: int
    ) -> tuple[Tensor, Tensor]:
        """Continue the sum of `synthesise`.

        Args:
            frames: the next windowed frames [B, t, n_fft], the first of which is number `first`.
            before: the result of the step before; None starts a sequence.
            n_frames: number of the frame at which the sequence ends.
        Returns:
            audio [B, 1, t*hop] from the first sample of the first frame on, and the last frames.
        """
        ratio, t = self.n_fft // self.hop_length, frames.shape[1]
        index = torch.arange(first + 1 - ratio, first + t, device=frames.device)
        exists = ((index >= 0) & (index < n_frames)).to(frames.dtype)[:, None]  # [R - 1 + t, 1]
        if before is None:
            before = frames.new_zeros(len(frames), ratio - 1, self.n_fft)
        frames = torch.cat([before, frames], dim=1) * exists
        squares = self.window.square() * exists
        total, envelope = frames.new_zeros(()), frames.new_zeros(())
        for r in range(ratio):  # the oldest frame first
            piece = slice((ratio - 1 - r) * self.hop_length, (ratio - r) * self.hop_length)
            total = total + frames[:, r : r + t, piece]
            envelope = envelope + squares[r : r + t, piece]
        return (total / envelope.clamp(min=1e-12)).flatten(1)[:, None], frames[:, t:]

    def _overlap_add(self, frames: Tensor) -> Tensor:
        """[B, T, n_fft] -> [B, T*hop]."""
        ratio = self.n_fft // self.hop_length
        pieces = frames.unflatten(-1, (ratio, self.hop_length))  # [B, T, R, hop]
        shifted = [F.pad(pieces[:, :, r], (0, 0, r, ratio - 1 - r)) for r in range(ratio)]
        total = torch.stack(shifted).sum(0)
        n_samples = frames.shape[1] * self.hop_length
        return total.flatten(1)[:, self.edge : self.edge + n_samples]
