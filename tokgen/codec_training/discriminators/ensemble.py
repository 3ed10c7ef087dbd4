"""DAC's discriminators: of several periods, and of complex spectra at several resolutions."""

from __future__ import annotations

from torch import Tensor, nn

from tokgen.codec_training.discriminators.bands import SpectrumDiscriminator
from tokgen.codec_training.discriminators.period import PeriodDiscriminator
from tokgen.nn.pretrained import Pretrained

__all__ = ["Discriminator"]


class Discriminator(Pretrained):
    """A set of discriminators.

    Args:
        periods: one `PeriodDiscriminator` for each; empty for spectra only, which is cheaper.
        period_channels: widths of their layers.
        windows: one `SpectrumDiscriminator` for each STFT window, in samples.
        channels: width of their layers (DAC: 32).
    Attributes:
        n_channels, n_bandwidths: 1: it judges mono audio, of every bandwidth alike.
    """

    n_channels = n_bandwidths = 1

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
            raise ValueError("periods and windows are both empty: give at least one")
        self.parts = nn.ModuleList(
            [
                *(PeriodDiscriminator(p, tuple(period_channels)) for p in periods),
                *(SpectrumDiscriminator(w, channels) for w in windows),
            ]
        )

    def forward(self, waveform: Tensor, bandwidth: int = -1) -> list[list[Tensor]]:
        """Feature maps of a waveform [B, 1, N] for each discriminator, the output last.

        DC is removed and the peak set to 0.8 first, so the discriminators cannot use the level.
        """
        x = waveform - waveform.mean(-1, keepdim=True)
        x = 0.8 * x / (x.abs().amax(-1, keepdim=True) + 1e-9)
        return [part(x) for part in self.parts]
