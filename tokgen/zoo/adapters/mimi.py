"""Mimi as transformers runs it (Défossez et al. 2024, "Moshi: a speech-text foundation model").

Causal, 12.5 frames a second, 32 levels unless a bandwidth asks for fewer; the first level is
semantic and has a quantizer of its own, so fewer levels are the first ones of all.

Same audio, same codes: every item is encoded alone, at its true length. Its transformers see
minutes of what came before, so long audio is not cut into windows: memory grows with its length,
for the attention's mask with the square of it. Cut recordings of more than some minutes first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tokgen.codec.base import Codec, Encoded, Side
from tokgen.zoo.loading import TransformersCodec
from tokgen.zoo.registry import mimi_numbers

if TYPE_CHECKING:
    from transformers import MimiModel


class MimiCodec(TransformersCodec):
    """`transformers.MimiModel` as a `Codec`; its stages are closed."""

    model: MimiModel
    model_class = "MimiModel"
    numbers = staticmethod(mimi_numbers)
    whole_because = "attends over minutes of what came before"

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
