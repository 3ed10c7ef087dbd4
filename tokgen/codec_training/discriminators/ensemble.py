"""DAC's discriminators: multi-period waveforms and multi-resolution complex spectra in bands."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tokgen.nn.pretrained import CONFIG, Pretrained
from tokgen.zoo.lookup import find_in_zoo

BANDS = (0.0, 0.1, 0.25, 0.5, 0.75, 1.0)
SLOPE = 0.1


def _conv2d(n_in: int, n_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Conv2d:
    padding = (kernel[0] // 2, kernel[1] // 2)
    return weight_norm(nn.Conv2d(n_in, n_out, kernel, stride, padding))


class PeriodDiscriminator(nn.Module):
    """The waveform folded at `period` samples (Kong et al. 2020)."""

    def __init__(self, period: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.period = period
        widths = [1, *channels]
        self.layers = nn.ModuleList(
            _conv2d(a, b, (5, 1), (3, 1) if i < len(channels) - 1 else (1, 1))
            for i, (a, b) in enumerate(pairwise(widths))
        )
        self.output = _conv2d(widths[-1], 1, (3, 1), (1, 1))

    def forward(self, waveform: Tensor) -> list[Tensor]:
        """[B, 1, N] -> feature maps, the output last."""
        x = F.pad(waveform, (0, -waveform.shape[-1] % self.period), mode="reflect")
        x = x.unflatten(-1, (-1, self.period))
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return [*features, self.output(x)]


class SpectrumDiscriminator(nn.Module):
    """A complex spectrum, cut in frequency bands with a stack of convolutions each."""

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
                    _conv2d(2, channels, (3, 9), (1, 1)),
                    *(_conv2d(channels, channels, (3, 9), (1, 2)) for _ in range(3)),
                    _conv2d(channels, channels, (3, 3), (1, 1)),
                ]
            )
            for _ in pairwise(self.edges)
        )
        self.output = _conv2d(channels, 1, (3, 3), (1, 1))

    def forward(self, waveform: Tensor) -> list[Tensor]:
        """[B, 1, N] -> feature maps, the output last."""
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
                band = F.leaky_relu(layer(band), SLOPE)
                features.append(band)
            ends.append(band)
        return [*features, self.output(torch.cat(ends, dim=-1))]


class Discriminator(Pretrained):
    """All discriminators behind one call.

    Args:
        periods: of the multi-period discriminators; empty for spectra only (cheaper).
        period_channels: their layer widths.
        windows: STFT windows of the spectrum discriminators, in samples.
        channels: width of the spectrum discriminators (DAC: 32).
    """

    def __init__(
        self,
        *,
        periods: list[int] | tuple[int, ...] = (2, 3, 5, 7, 11),
        period_channels: list[int] | tuple[int, ...] = (32, 128, 512, 1024, 1024),
        windows: list[int] | tuple[int, ...] = (2048, 1024, 512),
        channels: int = 32,
    ) -> None:
        super().__init__(
            {
                "periods": list(periods),
                "period_channels": list(period_channels),
                "windows": list(windows),
                "channels": channels,
            }
        )
        if not periods and not windows:
            raise ValueError("no periods and no windows: a discriminator needs at least one")
        self.parts = nn.ModuleList(
            [
                *(PeriodDiscriminator(p, tuple(period_channels)) for p in periods),
                *(SpectrumDiscriminator(w, channels) for w in windows),
            ]
        )

    def forward(self, waveform: Tensor) -> list[list[Tensor]]:
        """waveform [B, 1, N] -> per discriminator its feature maps, the output last.

        DC is removed and the peak set to .8 first, so that level is no clue.
        """
        x = waveform - waveform.mean(-1, keepdim=True)
        x = 0.8 * x / (x.abs().amax(-1, keepdim=True) + 1e-9)
        return [part(x) for part in self.parts]


def find_discriminator(where: str | None, codec: str) -> Path | None:
    """The folder of a saved discriminator.

    Args:
        where: a folder, "auto", or None.
        codec: name in the zoo or folder: "auto" looks for `discriminator/` in it and beside it.
    Raises:
        FileNotFoundError: a folder was named and holds none.
    """
    if where is None:
        return None
    places = [Path(where)]
    if where == "auto":
        folder = find_in_zoo(codec) or Path(codec)
        places = [folder / "discriminator", folder.parent / "discriminator"]
    for place in places:
        if (place / CONFIG).is_file():
            return place
    if where == "auto":
        return None
    raise FileNotFoundError(
        f"start_discriminator = {where!r}: holds no {CONFIG}; give a folder that train_codec.py "
        'saved, "auto", or null for a new one'
    )
