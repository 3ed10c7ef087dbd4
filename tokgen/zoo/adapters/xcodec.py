"""X-Codec as transformers runs it (Ye et al. 2024, "Codec Does Matter: Exploring the Semantic
Shortcoming of Codec for Audio Language Model").

Audio is padded with zeros to whole frames. Every item is encoded alone and in one piece, because
the semantic model attends over the whole clip; cut long recordings into utterances first. The
semantic model is frozen, as in X-Codec's training. Unlike transformers' own `encode`, this codec
lets gradients pass through it to the waveform, as an idempotence loss needs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.checks import check_layout
from tokgen.codec.spec import CodecSpec
from tokgen.codec.stages import ResidualCodec
from tokgen.codec.windows import fit_length
from tokgen.quantizers.beam import SearchedLevels
from tokgen.zoo.loading import TransformersCodec, choose_bandwidth

if TYPE_CHECKING:
    from transformers import XcodecModel

__all__ = ["XcodecCodec"]


class XcodecCodec(SearchedLevels, TransformersCodec, ResidualCodec):
    """`transformers.XcodecModel` as a `Codec`."""

    model: XcodecModel
    model_class = "XcodecModel"
    decoder_parts = ("acoustic_decoder.", "decoder_semantic.", "fc2.")
    whole_reason = "normalises and attends over all of an utterance"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        chosen = choose_bandwidth(config["target_bandwidths"], bandwidth)
        hop_length = math.prod(config["acoustic_model_config"]["downsampling_ratios"])
        bits = 1000 * chosen / math.ceil(config["sample_rate"] / hop_length)
        return {
            "sample_rate": config["sample_rate"],
            "hop_length": hop_length,
            "n_codebooks": int(bits // math.log2(config["codebook_size"])),
            "codebook_size": config["codebook_size"],
        }

    def __init__(self, model: XcodecModel, spec: CodecSpec) -> None:
        super().__init__(model, spec)
        config: Any = model.config
        if (semantic_hop := self.semantic_hop()) != config.hop_length:
            raise ValueError(
                f"{spec.name}: the semantic branch has a frame every {semantic_hop:g} samples, the "
                f"acoustic one every {config.hop_length}; their strides in config.json must agree"
            )
        model.semantic_model.requires_grad_(False)

    @property
    def levels(self) -> Sequence[Any]:
        return self.model.quantizer.quantizers[: self.spec.n_codebooks]  # type: ignore[return-value]

    def encoder_modules(self) -> Sequence[nn.Module]:
        model: Any = self.model
        return [model.acoustic_encoder, model.encoder_semantic, model.semantic_model, model.fc]

    def encode_latents(self, waveform: Tensor) -> Tensor:
        check_layout(waveform)
        n_samples = self.spec.n_frames(waveform.shape[-1]) * self.spec.hop_length
        waveform = fit_length(waveform, n_samples)
        semantic = self.model.encoder_semantic(self.semantic_features(waveform).mT)
        latents = torch.cat([self.model.acoustic_encoder(waveform), semantic], dim=1)
        return self.model.fc(latents.mT).mT

    def semantic_hop(self) -> float:
        """Return the samples per frame of the semantic branch."""
        config: Any = self.model.config
        return math.prod((*config.semantic_model_config.conv_stride, *config.strides))

    def semantic_features(self, waveform: Tensor) -> Tensor:
        """Return the features [B, T, C] of the semantic model for whole frames [B, 1, N]."""
        return self.mean_hidden_state(F.pad(waveform[:, 0], (self.model.pad, self.model.pad)))

    def mean_hidden_state(self, waveform: Tensor) -> Tensor:
        """Return the mean over the layers of the semantic model [B, T, C] for [B, N]."""
        hidden = self.model.semantic_model(waveform, output_hidden_states=True).hidden_states
        return torch.stack(hidden, dim=1).mean(dim=1)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        return self.model.acoustic_decoder(self.model.fc2(quantized.mT).mT)
