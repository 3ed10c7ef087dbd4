"""Discriminator of periodic samples."""

from __future__ import annotations

from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec_training.discriminators.layers import SLOPE, conv2d

__all__ = ["PeriodDiscriminator"]


class PeriodDiscriminator(nn.Module):
    """Convolutions over a waveform that is folded every `period` samples (Kong et al. 2020)."""

    def __init__(self, period: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        widths = [1, *channels]
        self.layers = nn.ModuleList(
            conv2d(a, b, (5, 1), (3, 1) if i < len(channels) - 1 else (1, 1))
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.output = conv2d(widths[-1], 1, (3, 1), (1, 1))

    def forward(self, waveform: Tensor) -> list[Tensor]:
        """Feature maps of a waveform [B, 1, N], the output last."""
        x = F.pad(waveform, (0, -waveform.shape[-1] % self.period), mode="reflect")
        x = x.unflatten(-1, (-1, self.period))
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return [*features, self.output(x)]
