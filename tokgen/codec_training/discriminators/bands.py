"""Discriminator of complex spectra in frequency bands."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec_training.discriminators.layers import SLOPE, conv2d

__all__ = ["BANDS", "NARROW", "SpectrumDiscriminator"]

BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)  # edges, as shares of the spectrum
NARROW = 3  # bins; below, oneDNN's bfloat16 convolution with stride 2 is wrong on CPUs with AMX


class SpectrumDiscriminator(nn.Module):
    """Convolutions over a complex spectrum, with one stack for each frequency band.

    Args:
        window: STFT window in samples; the hop is a quarter.
        channels: width of the convolutions.
    """

    window: Tensor
    bands: Iterable[nn.ModuleList]

    def __init__(self, window: int, channels: int) -> None:
        super().__init__()
        self.n_fft = window
        self.register_buffer("window", torch.hann_window(window), persistent=False)
        n_bins = window // 2 + 1
        self.edges = [round(b * n_bins) for b in BANDS]
        self.bands = nn.ModuleList(  # type: ignore[assignment]
            nn.ModuleList(
                [
                    conv2d(2, channels, (3, 9), (1, 1)),
                    *(conv2d(channels, channels, (3, 9), (1, 2)) for _ in range(3)),
                    conv2d(channels, channels, (3, 3), (1, 1)),
                ]
            )
            for _ in pairwise(self.edges)
        )
        self.output = conv2d(channels, 1, (3, 3), (1, 1))

    def forward(self, waveform: Tensor) -> list[Tensor]:
        """Feature maps of a waveform [B, 1, N], the output last."""
        spectrum = torch.stft(
            waveform[:, 0].float(),
            self.n_fft,
            self.n_fft // 4,
            window=self.window,
            return_complex=True,
        )
        x = torch.view_as_real(spectrum).permute(0, 3, 2, 1)  # [B, 2, frames, bins]
        features, ends = [], []
        for (low, high), layers in zip(pairwise(self.edges), self.bands, strict=True):
            band = x[..., low:high]
            for layer in layers:
                band = F.leaky_relu(_convolve(layer, band), SLOPE)
                features.append(band)
            ends.append(band)
        return [*features, self.output(torch.cat(ends, dim=-1))]


def _convolve(layer: nn.Module, band: Tensor) -> Tensor:
    """Apply a convolution; in float32 to few frequencies on a CPU."""
    if band.device.type == "cpu" and band.shape[-1] < NARROW:
        with torch.autocast("cpu", enabled=False):
            return layer(band.float())
    return layer(band)
