"""Mimi as transformers runs it (Défossez et al. 2024, "Moshi: a speech-text foundation model").

Mimi is causal. A bandwidth is rounded down to whole levels; the first one is semantic. Every item
is encoded alone and in one piece, because the transformers attend over minutes of past audio.
Memory grows with the square of the length: cut recordings to a few minutes first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.batches import encode_each
from tokgen.codec.spec import Encoded, Side
from tokgen.zoo.loading import TransformersCodec

if TYPE_CHECKING:
    from transformers import MimiModel

__all__ = ["MimiCodec"]


class MimiCodec(TransformersCodec):
    """`transformers.MimiModel` as a `Codec`."""

    model: MimiModel
    model_class = "MimiModel"
    whole_reason = "attends over minutes of past audio"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        rate, product = config["sampling_rate"], math.prod(config["upsampling_ratios"])
        given = config.get("frame_rate") or config.get("_frame_rate")  # saved by transformers 5
        frame_rate = given or rate / (2 * product)
        hop_length = product * int(math.ceil(rate / product) / frame_rate)
        levels, bits = config["num_quantizers"], math.log2(config["codebook_size"])
        if bandwidth is not None:
            level = bits * rate / hop_length / 1000
            if not 0 < bandwidth <= levels * level + 1e-9:
                raise ValueError(
                    f"bandwidth {bandwidth:g} kbps: this Mimi has {levels} levels of {level:g} "
                    f"kbps; give at most {levels * level:g}"
                )
            levels = max(1, int(bandwidth / level + 1e-9))
        return {
            "sample_rate": rate,
            "hop_length": hop_length,
            "n_codebooks": levels,
            "codebook_size": config["codebook_size"],
            "channels": config["audio_channels"],
        }

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        levels = self.spec.n_codebooks
        needed = max(levels, self.model.config.num_semantic_quantizers)  # transformers' minimum

        def encode(audio: Tensor) -> Encoded:
            found = self.model.encode(audio, num_quantizers=needed)
            return Encoded(found.audio_codes[:, :levels])

        return encode_each(self, waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.model.decode(codes).audio_values

    def code_vectors(self) -> Tensor:
        levels = [level.codebook.embed for level in self._levels()]
        return torch.stack(levels[: self.spec.n_codebooks])

    def to(self, device: torch.device | str) -> Codec:
        for level in self._levels():
            level.codebook._embed = None  # a cache of transformers, which stays on its device
        return super().to(device)

    def _levels(self) -> list[Any]:
        quantizer: Any = self.model.quantizer
        semantic = quantizer.semantic_residual_vector_quantizer.layers
        return [*semantic, *quantizer.acoustic_residual_vector_quantizer.layers]
