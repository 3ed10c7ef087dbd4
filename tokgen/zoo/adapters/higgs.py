"""The tokenizer of Higgs Audio v2 (Boson AI 2025) as transformers runs it.

It is an X-Codec whose semantic model hears the audio at a lower rate, and whose levels project the
latents. See `tokgen.zoo.adapters.xcodec`.
"""

from __future__ import annotations

import math
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.quantizers.beam import Level
from tokgen.zoo.adapters.xcodec import XcodecCodec

__all__ = ["HiggsCodec"]

_PAD = 160  # samples on either side, as in transformers


class HiggsCodec(XcodecCodec):
    """`transformers.HiggsAudioV2TokenizerModel` as a `Codec`."""

    model: Any
    model_class = "HiggsAudioV2TokenizerModel"

    def semantic_hop(self) -> float:
        config = self.model.config
        per_frame = math.prod((*config.semantic_model_config.conv_stride, *config.strides))
        skipped = max(1, config.semantic_downsample_factor)
        return per_frame * skipped * config.sample_rate / config.semantic_sample_rate

    def semantic_features(self, waveform: Tensor) -> Tensor:
        config = self.model.config
        rates = config.sample_rate, config.semantic_sample_rate
        if rates[0] != rates[1]:
            waveform = import_torchaudio().functional.resample(waveform, *rates)
        hidden = self.mean_hidden_state(F.pad(waveform[:, 0], (_PAD, _PAD)))
        return hidden[:, :: max(1, config.semantic_downsample_factor)]

    def search_levels(self) -> list[Level]:
        return [
            Level(
                rows=level.codebook.embed,
                outputs=level.project_out(level.codebook.embed).detach(),
                weight=level.project_in.weight,
                bias=level.project_in.bias,
            )
            for level in self.levels
        ]
