"""X-Codec as transformers runs it (Ye et al. 2024, "Codec Does Matter: Exploring the Semantic
Shortcoming of Codec for Audio Language Model").

A DAC encoder and a semantic model (HuBERT or WavLM) hear the clip side by side; one residual
quantizer codes both, and a DAC decoder speaks. Audio is padded with zeros to whole frames, on
which both branches agree in length.

Same audio, same codes: the semantic model normalises and attends over the whole clip, so every
item is encoded alone at its true length. For the same reason a clip goes through in one piece:
memory grows with its length, and a long recording should be cut into utterances first.

The semantic model is frozen, as in its training, but passes gradients on to the waveform, which
transformers' own `encode` does not: an idempotence loss then sees the whole encoder.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.spec import CodecSpec
from tokgen.codec.windows import fit_length
from tokgen.zoo.loading import TransformersCodec, _one_of
from tokgen.zoo.residual import ResidualCodec

if TYPE_CHECKING:
    from transformers import XcodecModel


class XcodecCodec(TransformersCodec, ResidualCodec):
    """`transformers.XcodecModel` as a `Codec`, with every stage open."""

    model: XcodecModel
    model_class = "XcodecModel"
    whole_because = "normalises and attends over all of an utterance"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        """Numbers of an X-Codec at one of its bandwidths in kbps; None takes the highest.

        Raises:
            ValueError: a bandwidth that is none of them.
        """
        chosen = _one_of(config["target_bandwidths"], bandwidth)
        hop_length = math.prod(config["acoustic_model_config"]["downsampling_ratios"])
        bits = 1000 * chosen / math.ceil(config["sample_rate"] / hop_length)
        return {
            "sample_rate": config["sample_rate"],
            "hop_length": hop_length,
            "n_codebooks": int(bits // math.log2(config["codebook_size"])),
            "codebook_size": config["codebook_size"],
        }

    def __init__(self, model: XcodecModel, spec: CodecSpec) -> None:
        config: Any = model.config
        semantic_hop = math.prod((*config.semantic_model_config.conv_stride, *config.strides))
        if semantic_hop != config.hop_length:
            raise ValueError(
                f"{spec.name}: the semantic branch has a frame every {semantic_hop} samples, the "
                f"acoustic one every {config.hop_length}; their strides in config.json must agree"
            )
        super().__init__(model, spec)
        model.semantic_model.requires_grad_(False)

    @property
    def levels(self) -> Sequence[Any]:
        return self.model.quantizer.quantizers[: self.spec.n_codebooks]  # type: ignore[return-value]

    def encode_latents(self, waveform: Tensor) -> Tensor:
        n_samples = self.spec.n_frames(waveform.shape[-1]) * self.spec.hop_length
        waveform = fit_length(waveform, n_samples)
        heard = F.pad(waveform[:, 0], (self.model.pad, self.model.pad))
        hidden = self.model.semantic_model(heard, output_hidden_states=True).hidden_states
        meaning = torch.stack(hidden, dim=1).mean(dim=1).mT
        sound = self.model.acoustic_encoder(waveform)
        latents = torch.cat([sound, self.model.encoder_semantic(meaning)], dim=1)
        return self.model.fc(latents.mT).mT

    def decode_latents(self, quantized: Tensor) -> Tensor:
        return self.model.acoustic_decoder(self.model.fc2(quantized.mT).mT)
