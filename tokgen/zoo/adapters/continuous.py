"""Continuous tokenizers as transformers runs them: VibeVoice's acoustic one and Pocket TTS's.

Both are causal. Every item is encoded alone and in one piece: cut recordings to a few minutes
first.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from tokgen.codec.checks import check_layout
from tokgen.codec.windows import fit_length
from tokgen.nn.files import WeightsHeader
from tokgen.nn.hub import CONFIG
from tokgen.zoo.continuous import PretrainedContinuous
from tokgen.zoo.transformers_loading import from_transformers, load_transformers

if TYPE_CHECKING:
    from transformers import PocketTTSAudioTokenizerModel, VibeVoiceAcousticTokenizerModel

__all__ = ["PocketTtsContinuous", "TransformersContinuous", "VibeVoiceContinuous"]


class TransformersContinuous(PretrainedContinuous):
    """A continuous codec that wraps a model of transformers."""

    library = "transformers"
    model_class: ClassVar[str]  # name of the model's class in transformers
    decoder_parts = ("decoder.",)

    @classmethod
    def config_of(cls, model: Any) -> dict[str, Any]:
        return model.config.to_dict()

    @classmethod
    def load_model(cls, folder: Path) -> Any:
        return load_transformers(folder, cls.network_class, cls.check)

    @classmethod
    def network_class(cls, config: dict[str, Any]) -> Any:
        """Return the class of the network."""
        return from_transformers(cls.model_class)

    @classmethod
    def check(cls, folder: Path, config: dict[str, Any], header: WeightsHeader) -> None:
        """Check config.json before the network is built. The library has defaults."""
        try:
            cls.read_spec(folder.name, cls.defaults() | config)
        except ValueError as error:
            raise ValueError(f"{folder / CONFIG}: {error}") from error

    @classmethod
    def defaults(cls) -> dict[str, Any]:
        """Return the settings of the library that config.json may leave out."""
        return cls.network_class({}).config_class().to_dict()

    def _whole_frames(self, waveform: Tensor) -> Tensor:
        """Return audio padded to [B, 1, T * hop_length]."""
        check_layout(waveform)
        hop = self.spec.hop_length or 1
        return fit_length(waveform, self.spec.n_frames(waveform.shape[-1]) * hop)


class VibeVoiceContinuous(TransformersContinuous):
    """`transformers.VibeVoiceAcousticTokenizerModel` as a `ContinuousCodec`, without its noise.

    Its config.json does not say the sample rate, which is 24 kHz. transformers' feature extractor
    scales audio to -25 dBFS first; this class does not, so that decoded audio keeps its level.
    """

    model: VibeVoiceAcousticTokenizerModel
    model_class = "VibeVoiceAcousticTokenizerModel"

    @staticmethod
    def numbers(config: dict[str, Any]) -> dict[str, Any]:
        if config["channels"] != 1:
            raise ValueError(f"channels = {config['channels']}: only mono models run; it must be 1")
        hop_length = math.prod(config["downsampling_ratios"])
        return {
            "sample_rate": 24000,
            "hop_length": hop_length,
            "latent_dim": config["hidden_size"],
        }

    def encode_latents(self, waveform: Tensor, lengths: list[int] | None = None) -> Tensor:
        return self.model.encode(self._whole_frames(waveform), sample=False).latents.mT

    def decode_latents(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents.mT).audio


class PocketTtsContinuous(TransformersContinuous):
    """`transformers.PocketTTSAudioTokenizerModel` as a `ContinuousCodec`."""

    model: PocketTTSAudioTokenizerModel
    model_class = "PocketTTSAudioTokenizerModel"

    @staticmethod
    def numbers(config: dict[str, Any]) -> dict[str, Any]:
        for half in ("encoder", "decoder"):
            if config.get(f"{half}_config", "") is None:
                raise ValueError(f"{half}_config = null: save the model with its {half}")
        if not config["use_causal_conv"]:
            raise ValueError("use_causal_conv = false: only causal models run; it must be true")
        return {
            "sample_rate": config["sampling_rate"],
            "hop_length": math.prod(config["upsampling_ratios"]) * config["latent_stride"],
            "latent_dim": config["latent_dim"],
        }

    def encode_latents(self, waveform: Tensor, lengths: list[int] | None = None) -> Tensor:
        return self.model.encode(self._whole_frames(waveform)).latents.mT

    def decode_latents(self, latents: Tensor) -> Tensor:
        return self.model.decode(latents.mT).audio_values
