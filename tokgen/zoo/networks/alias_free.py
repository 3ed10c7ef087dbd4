"""Layers of waveform codecs with alias-free activations, as in BigVGAN (Lee et al. 2023).

BigCodec and FACodec are made of them: DAC's residual units, with an activation that runs at twice
the sample rate. Names of the parameters are those of the published weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = [
    "AngleLevel",
    "DownBlock",
    "ResidualUnit",
    "Snake",
    "UpBlock",
    "low_pass",
    "waveform_decoder",
    "waveform_encoder",
]

_TAPS = 12  # of the low-pass filter between a rate and its double


def low_pass(n_taps: int = _TAPS, cutoff: float = 0.25, width: float = 0.3) -> Tensor:
    """Kaiser-windowed sinc [n_taps], n_taps even, of sum 1.

    Args:
        n_taps: see above.
        cutoff: in cycles per sample.
        width: half of the transition band, in cycles per sample.
    """
    half = n_taps // 2
    attenuation = 2.285 * (half - 1) * math.pi * 4 * width + 7.95  # dB, by Kaiser's formula
    if attenuation > 50:
        beta = 0.1102 * (attenuation - 8.7)
    else:
        beta = 0.5842 * max(0, attenuation - 21) ** 0.4 + 0.07886 * max(0, attenuation - 21)
    window = torch.kaiser_window(n_taps, periodic=False, beta=beta)
    taps = 2 * cutoff * window * torch.sinc(2 * cutoff * (torch.arange(-half, half) + 0.5))
    return taps / taps.sum()


class _Curve(nn.Module):
    """Parameters of the activation x + sin²(αx) / β, as logarithms."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(channels))
        self.beta = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        alpha, beta = self.alpha.exp()[:, None], self.beta.exp()[:, None]
        return x + 1 / (beta + 1e-9) * torch.sin(x * alpha).pow(2)


class Snake(nn.Module):
    """The snake activation at twice the rate: up, activation, down. [B, C, T] -> [B, C, T]."""

    taps: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.act = _Curve(channels)
        self.register_buffer("taps", low_pass()[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        channels, edge = x.shape[1], _TAPS // 2 - 1
        taps = self.taps.expand(channels, -1, -1)
        x = F.pad(x, (edge, edge), mode="replicate")
        x = F.conv_transpose1d(x, 2 * taps, stride=2, groups=channels)
        cut = 2 * edge + (_TAPS - 2) // 2
        x = self.act(x[..., cut:-cut])
        x = F.pad(x, (_TAPS // 2 - 1, _TAPS // 2), mode="replicate")
        return F.conv1d(x, taps, stride=2, groups=channels)


class ResidualUnit(nn.Module):
    """x + a dilated and a pointwise convolution of it, each after an activation."""

    def __init__(self, channels: int, dilation: int) -> None:
        super().__init__()
        self.block = nn.Sequential(
            Snake(channels),
            nn.Conv1d(channels, channels, 7, dilation=dilation, padding=3 * dilation),
            Snake(channels),
            nn.Conv1d(channels, channels, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.block(x)


class DownBlock(nn.Module):
    """Residual units, and a convolution that divides the rate: [B, C, T] -> [B, 2C, T / stride]."""

    def __init__(self, channels: int, stride: int, dilations: Sequence[int]) -> None:
        super().__init__()
        padding = -(-stride // 2)
        down = nn.Conv1d(channels, 2 * channels, 2 * stride, stride=stride, padding=padding)
        units = [ResidualUnit(channels, dilation) for dilation in dilations]
        self.block = nn.Sequential(*units, Snake(channels), down)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class UpBlock(nn.Module):
    """A convolution that multiplies the rate, and residual units: [B, C, T] -> [B, C / 2, ·]."""

    def __init__(self, channels: int, stride: int, dilations: Sequence[int]) -> None:
        super().__init__()
        half = channels // 2
        up = nn.ConvTranspose1d(
            channels,
            half,
            2 * stride,
            stride=stride,
            padding=-(-stride // 2),
            output_padding=stride % 2,
        )
        units = [ResidualUnit(half, dilation) for dilation in dilations]
        self.block = nn.Sequential(Snake(channels), up, *units)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


def waveform_encoder(
    channels: int,
    strides: Sequence[int],
    out_channels: int,
    dilations: Sequence[int] = (1, 3, 9),
    middle: Sequence[nn.Module] = (),
) -> nn.Sequential:
    """Return an encoder: waveform [B, 1, N] -> [B, out_channels, N / product of strides].

    Args:
        channels: after the first convolution; each block doubles them.
        strides: of the blocks.
        out_channels: see above.
        dilations: of the residual units of each block.
        middle: layers after the blocks.
    """
    layers: list[nn.Module] = [nn.Conv1d(1, channels, 7, padding=3)]
    for stride in strides:
        layers.append(DownBlock(channels, stride, dilations))
        channels *= 2
    last = nn.Conv1d(channels, out_channels, 3, padding=1)
    return nn.Sequential(*layers, *middle, Snake(channels), last)


def waveform_decoder(
    in_channels: int,
    channels: int,
    strides: Sequence[int],
    dilations: Sequence[int] = (1, 3, 9),
    middle: Sequence[nn.Module] = (),
) -> nn.Sequential:
    """Return a decoder: [B, in_channels, T] -> waveform [B, 1, T * product of strides].

    Args:
        in_channels: see above.
        channels: after the first convolution; each block halves them.
        strides: of the blocks.
        dilations: of the residual units of each block.
        middle: layers before the blocks.
    """
    layers: list[nn.Module] = [nn.Conv1d(in_channels, channels, 7, padding=3), *middle]
    for stride in strides:
        layers.append(UpBlock(channels, stride, dilations))
        channels //= 2
    return nn.Sequential(*layers, Snake(channels), nn.Conv1d(channels, 1, 7, padding=3), nn.Tanh())


class AngleLevel(nn.Module):
    """One level of a quantizer that chooses the row at the smallest angle, as DAC's does."""

    def __init__(self, dim: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(dim, codebook_dim)
        self.out_proj = nn.Linear(codebook_dim, dim)
        self._codebook = nn.Embedding(codebook_size, codebook_dim)

    def choose(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """latents [B, D, T] -> indices [B, T] and quantized [B, D, T].

        The quantized latents are rounded as in training with the straight-through gradient, so that
        the levels after this one choose the same codes as the published networks.
        """
        indices = self.encode(latents)
        return indices, self.through(latents, indices)[1]

    def through(self, latents: Tensor, indices: Tensor) -> tuple[Tensor, Tensor]:
        """Return projected latents [B, d, T] and quantized [B, D, T].

        The gradient of `quantized` passes from the rows straight to the projected latents.
        """
        projected = self.project(latents)
        rows = projected + (self.rows(indices) - projected).detach()
        return projected, self.out_proj(rows.mT).mT

    def project(self, latents: Tensor) -> Tensor:
        """latents [B, D, T] -> projected latents [B, d, T]."""
        return self.in_proj(latents.mT).mT

    def rows(self, indices: Tensor) -> Tensor:
        """indices [B, T] -> rows of the codebook [B, d, T]."""
        return self._codebook(indices).mT

    def encode(self, latents: Tensor) -> Tensor:
        """latents [B, D, T] -> indices [B, T]."""
        projected = F.normalize(self.in_proj(latents.mT).flatten(0, 1))
        rows = F.normalize(self._codebook.weight)
        squares = projected.square().sum(1, keepdim=True), rows.square().sum(1)
        distances = squares[0] - 2 * projected @ rows.mT + squares[1]
        return distances.neg().max(1).indices.view(len(latents), -1)

    def decode(self, indices: Tensor) -> Tensor:
        """indices [B, T] -> quantized [B, D, T]."""
        return self.out_proj(self._codebook(indices)).mT
