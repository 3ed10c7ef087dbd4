"""WavTokenizer (Ji et al. 2025) as transformers runs it: one level, the row nearest to the latents.

The decoder attends over all of an utterance, so every item is encoded alone and in one piece, and
memory grows with the square of the length: cut long recordings into utterances first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokgen.codec.checks import check_layout
from tokgen.codec.stages import ResidualCodec
from tokgen.quantizers.beam import SearchedLevels
from tokgen.zoo.loading import TransformersCodec, let_gradients_through, refuse_bandwidth

__all__ = ["WavTokenizerCodec"]


class WavTokenizerCodec(SearchedLevels, TransformersCodec, ResidualCodec):
    """`transformers.WavTokenizerModel` as a `Codec`."""

    model: Any
    model_class = "WavTokenizerModel"
    decoder_parts = ("backbone.", "head.")
    whole_reason = "attends over all of an utterance"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        refuse_bandwidth(bandwidth)
        return {
            "sample_rate": config["sampling_rate"],
            "hop_length": math.prod(config["upsampling_ratios"]),
            "n_codebooks": 1,
            "codebook_size": config["codebook_size"],
        }

    @property
    def levels(self) -> Sequence[Any]:
        return [self.model.encoder_model.quantizer]

    def quantizer_modules(self) -> Sequence[nn.Module]:
        return [self.model.encoder_model.quantizer]

    def encoder_modules(self) -> Sequence[nn.Module]:
        return [self.model.encoder_model.encoder]

    def encode_latents(self, waveform: Tensor) -> Tensor:
        check_layout(waveform)
        encoder = self.model.encoder_model.encoder
        let_gradients_through(encoder)
        return encoder(waveform)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        bandwidth = torch.zeros(1, dtype=torch.long, device=quantized.device)  # the one in use
        return self.model.head(self.model.backbone(quantized, bandwidth))
