"""Mimi as transformers runs it (Défossez et al. 2024, "Moshi: a speech-text foundation model").

Causal, 12.5 frames a second, 32 levels unless a bandwidth asks for fewer; the first level is
semantic and has a quantizer of its own, so fewer levels are the first ones of all.

Same audio, same codes: every item is encoded alone, at its true length. Its transformers see
minutes of what came before, so long audio is not cut into windows: memory grows with its length,
for the attention's mask with the square of it. Cut recordings of more than some minutes first.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.spec import Encoded, Side
from tokgen.zoo.loading import TransformersCodec

if TYPE_CHECKING:
    from transformers import MimiModel


class MimiCodec(TransformersCodec):
    """`transformers.MimiModel` as a `Codec`; its stages are closed."""

    model: MimiModel
    model_class = "MimiModel"
    whole_because = "attends over minutes of what came before"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        """Numbers of a Mimi with as many levels as fit into `bandwidth` kbps; None takes all.

        Raises:
            ValueError: not above 0, or more than all levels take.
        """
        rate, product = config["sampling_rate"], math.prod(config["upsampling_ratios"])
        given = config.get("frame_rate") or config.get("_frame_rate")  # the second: saved by 5.x
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
        n_levels, n_frames = self.spec.n_codebooks, self.spec.n_frames(waveform.shape[-1])
        fewest = self.model.config.num_semantic_quantizers  # that transformers gives
        codes = waveform.new_zeros(len(lengths), n_levels, n_frames, dtype=torch.long)
        for item, audio, n in zip(codes, waveform, lengths, strict=True):
            found = self.model.encode(audio[None, :, :n], num_quantizers=max(n_levels, fewest))
            item[:, : self.spec.n_frames(n)] = found.audio_codes[0, :n_levels]
        return Encoded(codes)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.model.decode(codes).audio_values

    def code_vectors(self) -> Tensor:
        levels = [level.codebook.embed for level in self._levels()]
        return torch.stack(levels[: self.spec.n_codebooks])

    def to(self, device: torch.device | str) -> Codec:
        for level in self._levels():
            level.codebook._embed = None  # kept by transformers on the device it was made on
        return super().to(device)

    def _levels(self) -> list[Any]:
        quantizer: Any = self.model.quantizer
        semantic = quantizer.semantic_residual_vector_quantizer.layers
        return [*semantic, *quantizer.acoustic_residual_vector_quantizer.layers]
