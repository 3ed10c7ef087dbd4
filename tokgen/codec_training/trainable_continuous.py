"""The STFT codec without a quantizer in training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from tokgen.codec_training.trainable import Reconstruction, TrainableCodec, reconstruction_of
from tokgen.nn.files import read_json
from tokgen.nn.hub import CONFIG
from tokgen.zoo.continuous import StftContinuous
from tokgen.zoo.networks.autoencoder import StftAutoencoder
from tokgen.zoo.networks.stft import StftCodecModel

__all__ = ["TrainableContinuous"]


class TrainableContinuous(TrainableCodec):
    """`StftAutoencoder` in training.

    Args:
        noise: standard deviation of normal noise on the latents in training, so that the decoder
            learns to forgive what a quantizer will do to them. Their RMS is 1.
        config: settings of `StftAutoencoder`.
    """

    codec_class = StftContinuous
    model: StftAutoencoder

    def __init__(self, noise: float = 0.0, **config: Any) -> None:
        super().__init__()
        self.noise = noise
        self.model = StftAutoencoder(**config)
        self.sample_rate = self.model.sample_rate

    def forward(self, waveform: Tensor, quantize: bool = False) -> Reconstruction:
        noise = self.noise if self.training else 0.0
        return reconstruction_of(self.model(waveform, noise=noise), None)

    def fit_statistics(self, waveforms: Tensor) -> None:
        self.model.spectrum.fit_levels(waveforms)

    def encoder_parameters(self) -> list[nn.Parameter]:
        return list(self.model.encoder.parameters())

    def open_saved(self, folder: Path) -> Any:
        """Load a codec with or without quantizer."""
        kind = read_json(folder / CONFIG).get("model_type")
        model = StftAutoencoder if kind == StftAutoencoder.model_type else StftCodecModel
        return model.from_pretrained(folder)

    def weights_of(self, saved: nn.Module) -> dict[str, Tensor]:
        ours = self.model.state_dict()
        parts = ("quantizer.", "importance.")
        weights = saved.state_dict()
        return {k: w for k, w in weights.items() if k in ours or not k.startswith(parts)}

    def as_codec(self) -> StftContinuous:  # type: ignore[override]
        return StftContinuous.from_model(self.model)
