"""Fine-tune the decoder of transformers' MimiModel."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import broadcast
from torch import Tensor, nn

from tokgen.codec.windows import fit_length
from tokgen.codec_training.trainable import Reconstruction, TrainableCodec
from tokgen.quantizers.settings import VariableSettings
from tokgen.zoo.adapters.mimi import MimiCodec
from tokgen.zoo.loading import PretrainedCodec
from tokgen.zoo.transformers_loading import from_transformers

__all__ = ["TrainableMimi"]


class TrainableMimi(TrainableCodec):
    """transformers' `MimiModel`, of which only the decoder trains; its codes stay as they are.

    The first level of Mimi was distilled from a speech model that is no part of it. Training the
    encoder without that model would lose what the level means, so encoder and quantizer keep their
    weights. Each batch is decoded from a random number of levels; in eval mode from all.
    """

    codec_class = MimiCodec
    model: Any

    def __init__(self, variable: VariableSettings | None = None, **config: Any) -> None:
        super().__init__()
        if variable is not None:
            raise ValueError(
                "architecture mimi with quantizer variable: the encoder does not train; set "
                "quantizer residual"
            )
        settings = from_transformers("MimiConfig")(**config)
        self.model = from_transformers("MimiModel")(settings)
        self.sample_rate, self.n_channels = settings.sampling_rate, settings.audio_channels
        self.model.requires_grad_(False)
        for part in self._decoder():
            part.requires_grad_(True)

    def check_new(self) -> None:
        raise ValueError(
            "architecture mimi: only the decoder trains; set start_from to a trained Mimi"
        )

    def forward(self, waveform: Tensor, quantize: bool = True) -> Reconstruction:
        """Encode and decode a waveform [B, C, N]. Encoder and quantizer run in float32."""
        if not quantize:
            raise ValueError(
                "architecture mimi: the decoder trains on what the quantizer makes; set "
                "continuous_steps 0"
            )
        with torch.no_grad(), torch.autocast(waveform.device.type, enabled=False):
            codes = self.model.encode(waveform, num_quantizers=self._levels()).audio_codes
        decoded = self.model.decode(codes).audio_values
        zero = decoded.new_zeros(())
        return Reconstruction(fit_length(decoded, waveform.shape[-1]), zero, zero, codes)

    def _levels(self) -> int:
        """Draw the number of levels of a batch, the same on all processes."""
        config = self.model.config
        least, most = config.num_semantic_quantizers, config.num_quantizers
        if not self.training:
            return most
        drawn = torch.randint(least, most + 1, (1,)).to(next(self.model.parameters()).device)
        return int(broadcast(drawn))

    def _decoder(self) -> list[nn.Module]:
        names = ("decoder", "decoder_transformer", "upsample")  # one module since transformers 5.24
        return [part for name in names if (part := getattr(self.model, name, None)) is not None]

    def encoder_parameters(self) -> list[nn.Parameter]:
        return [weight for weight in self.model.parameters() if not weight.requires_grad]

    def as_codec(self) -> PretrainedCodec:
        return MimiCodec.from_model(self.model, "mimi")
