"""DAC's discriminators: multi-period waveforms and multi-resolution complex spectra in bands."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from tokgen.codec_training.discriminators.bands import SpectrumDiscriminator
from tokgen.codec_training.discriminators.period import PeriodDiscriminator
from tokgen.nn.pretrained import CONFIG, Pretrained
from tokgen.zoo.lookup import find_in_zoo


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
