"""Fine-tune the decoder of a codec with an offline quantizer on what the quantizer makes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tokgen.codec.windows import fit_length
from tokgen.codec_training.trainable import Reconstruction, TrainableCodec
from tokgen.zoo.loading import PretrainedCodec
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.offline import OfflineCodec, OfflineModel

__all__ = ["TrainableOffline"]


class TrainableOffline(TrainableCodec):
    """An `OfflineCodec` of which only the decoder trains; its codes stay as they are.

    Args:
        codec: folder or name of the codec.
        beam: paths of the quantizer's search in training; None means those of the codec. Fewer
            are faster, and the decoder then sees worse codes than it will get.
    Raises:
        ValueError: a codec of another kind, or one whose network has no separate decoder.
    """

    codec_class = OfflineCodec
    model: OfflineModel

    def __init__(self, codec: str, beam: int | None = None) -> None:
        super().__init__()
        loaded = load_codec(codec)
        if not isinstance(loaded, OfflineCodec):
            raise ValueError(
                f"{codec} is a {type(loaded).__name__}, not a codec with an offline quantizer: "
                "recipes/quantize_offline.py makes one"
            )
        if not isinstance(getattr(loaded.model.autoencoder, "decoder", None), nn.Module):
            raise ValueError(f"{codec}: the network has no decoder of its own to train")
        self._coder = loaded if beam is None else loaded.with_beam(beam)
        self.model = loaded.model
        self.sample_rate = loaded.spec.sample_rate
        self.model.requires_grad_(False)
        self.decoder.requires_grad_(True)

    @property
    def decoder(self) -> nn.Module:
        """The network that trains."""
        return self.model.autoencoder.get_submodule("decoder")

    def forward(self, waveform: Tensor, quantize: bool = True) -> Reconstruction:
        """Encode and decode a waveform [B, 1, N]. The encoder runs in float32."""
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            latents, codes = self.model.continuous.encode_latents(waveform), None
            if quantize:
                codes = self._coder.quantize(latents)
                latents = self._coder.dequantize(codes)
        decoded = self.model.continuous.decode_latents(latents)
        zero = decoded.new_zeros(())
        return Reconstruction(fit_length(decoded, waveform.shape[-1]), zero, zero, codes)

    def encoder_parameters(self) -> list[nn.Parameter]:
        return [weight for weight in self.model.parameters() if not weight.requires_grad]

    def as_codec(self) -> PretrainedCodec:
        return OfflineCodec.from_model(self.model, "offline")

    def open_saved(self, folder: Path) -> Any:
        raise ValueError(f"start_from = {folder}: give the codec as model.codec")
