"""EnCodec's discriminator of complex spectra at several resolutions (Défossez et al. 2022)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from tokgen.nn.pretrained import Pretrained

__all__ = ["DILATIONS", "SLOPE", "MultiScaleStftDiscriminator", "StftDiscriminator"]

DILATIONS = (1, 2, 4)  # over frames
SLOPE = 0.2  # of leaky ReLU


class StftDiscriminator(nn.Module):
    """2-D convolutions over the real and imaginary parts of a spectrum, dilated over its frames.

    Args:
        window: STFT window in samples; the hop is a quarter.
        width: channels of the convolutions.
        channels: channels of the audio.
    """

    window: Tensor

    def __init__(self, window: int, width: int, channels: int) -> None:
        super().__init__()
        hann = torch.hann_window(window)
        self.register_buffer("window", hann / hann.square().sum().sqrt(), persistent=False)
        first = nn.Conv2d(2 * channels, width, (3, 9), padding=(1, 4))
        dilated = [
            nn.Conv2d(width, width, (3, 9), stride=(1, 2), dilation=(d, 1), padding=(d, 4))
            for d in DILATIONS
        ]
        last = nn.Conv2d(width, width, 3, padding=1)
        # the first layer has no weight norm, as in the authors' code
        self.layers = nn.ModuleList([first, *(weight_norm(layer) for layer in (*dilated, last))])
        self.output = weight_norm(nn.Conv2d(width, 1, 3, padding=1))

    def forward(self, waveform: Tensor) -> list[Tensor]:
        """Feature maps of a waveform [B, C, N], the output [B, 1, frames, bins] last."""
        size = len(self.window)
        spectrum = torch.stft(
            waveform.flatten(0, 1).float(),
            size,
            size // 4,
            window=self.window,
            center=False,
            return_complex=True,
        )
        spectrum = spectrum.unflatten(0, waveform.shape[:2]).mT
        x = torch.cat([spectrum.real, spectrum.imag], dim=1)  # [B, 2C, frames, bins]
        features = []
        for layer in self.layers:
            x = F.leaky_relu(layer(x), SLOPE)
            features.append(x)
        return [*features, self.output(x)]


class MultiScaleStftDiscriminator(Pretrained):
    """The MS-STFT discriminator: one `StftDiscriminator` for each window, and bandwidth if wanted.

    Args:
        windows: STFT windows in samples. EnCodec has three; five are its windows with 256 and 128.
        width: channels of the convolutions.
        channels: channels of the audio, 2 for stereo.
        bandwidths: 1 judges audio of every bandwidth alike. As many as the codec has give each
            bandwidth a discriminator of its own, as in EnCodec's paper.
    Attributes:
        min_samples: length of the shortest audio that it can judge.
        n_channels, n_bandwidths: as `channels` and `bandwidths`.
    """

    model_type = "tokgen_msstft_discriminator"

    def __init__(
        self,
        *,
        windows: list[int] | tuple[int, ...] = (1024, 2048, 512),
        width: int = 32,
        channels: int = 1,
        bandwidths: int = 1,
    ) -> None:
        super().__init__(
            {
                "windows": list(windows),
                "width": width,
                "channels": channels,
                "bandwidths": bandwidths,
            }
        )
        if not windows:
            raise ValueError("windows is empty: give at least one STFT window, in samples")
        if bandwidths < 1:
            raise ValueError(f"bandwidths = {bandwidths}: must be at least 1")
        self.min_samples = max(windows)
        self.n_channels, self.n_bandwidths = channels, bandwidths
        self.parts = nn.ModuleList(
            StftDiscriminator(w, width, channels) for _ in range(bandwidths) for w in windows
        )

    def forward(self, waveform: Tensor, bandwidth: int = -1) -> list[list[Tensor]]:
        """Feature maps of a waveform [B, C, N] for each window, the output last.

        Args:
            waveform: original or decoded audio.
            bandwidth: index of the bandwidth that the decoded audio has; -1 is the highest. Not
                used with one discriminator for all.
        Raises:
            ValueError: another number of channels, or audio shorter than the longest window.
        """
        channels, n_samples = waveform.shape[1:]
        if channels != self.config["channels"]:
            raise ValueError(
                f"audio has {channels} channels, but the discriminator {self.config['channels']}: "
                "set its channels"
            )
        if n_samples < self.min_samples:
            raise ValueError(
                f"audio of {n_samples} samples is shorter than the window of {self.min_samples}: "
                "use longer audio or shorter windows"
            )
        n_windows = len(self.config["windows"])
        first = bandwidth % self.n_bandwidths * n_windows
        return [part(waveform) for part in self.parts[first : first + n_windows]]
