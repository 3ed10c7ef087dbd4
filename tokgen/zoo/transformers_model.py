"""The STFT codec as a model of transformers, for `AutoModelForAudioTokenization`.

    import tokgen
    from transformers import AutoFeatureExtractor, AutoModelForAudioTokenization

    model = AutoModelForAudioTokenization.from_pretrained("codecs/speech-16k")
    extractor = AutoFeatureExtractor.from_pretrained("codecs/speech-16k")
    inputs = extractor(audio, sampling_rate=16000, return_tensors="pt")
    codes = model.encode(**inputs).audio_codes      # [B, K, T]
    audio = model.decode(codes).audio_values        # [B, 1, N]

It has the codes of `load_codec`.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from tokgen.nn.cards import ModelCardFacts
from tokgen.nn.hub import Pushable
from tokgen.runs.device import pick_device
from tokgen.zoo.networks.stft import StftCodecModel
from tokgen.zoo.stft import StftCodec
from tokgen.zoo.transformers_config import StftCodecConfig

__all__ = ["FROM_AUTO", "HUB", "SETTINGS", "StftCodecForAudioTokenization", "StftCodecOutput"]

SETTINGS = tuple(inspect.signature(StftCodecModel.__init__).parameters)[1:]
HUB = ("revision", "token", "cache_dir", "local_files_only", "subfolder")
FROM_AUTO = (
    "_from_auto",
    "trust_remote_code",
    "adapter_kwargs",
    "use_safetensors",
)


@dataclass
class StftCodecOutput(ModelOutput):
    """Result of encoding and decoding.

    Attributes:
        audio_codes: int64 [B, K, T].
        audio_values: float32 [B, 1, N].
    """

    audio_codes: Tensor | None = None
    audio_values: Tensor | None = None


class StftCodecForAudioTokenization(Pushable, PreTrainedModel):  # type: ignore[misc]
    """`StftCodec` with the methods of transformers' codecs. It runs in float32.

    Args:
        config: settings of the network.
        codec: codec with these settings; None makes one with random weights.
    """

    config_class = StftCodecConfig
    base_model_prefix = ""
    main_input_name = "input_values"

    def __init__(self, config: StftCodecConfig, codec: StftCodec | None = None) -> None:
        super().__init__(config)
        if codec is None:
            codec = StftCodec.from_model(StftCodecModel(**_settings(config)))
        self.codec, self.network = codec, codec.model
        self.post_init()

    def _init_weights(self, module: torch.nn.Module) -> None:
        """Keep the weights that the network's constructor sets."""

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        config: StftCodecConfig | None = None,
        dtype: str | torch.dtype | None = None,
        device_map: str | torch.device | None = None,
        **options: Any,
    ) -> StftCodecForAudioTokenization:
        """Load as `StftCodec.from_pretrained`: strictly, and from safetensors alone.

        Args:
            pretrained_model_name_or_path: folder or hub id.
            config: settings; they must be those of the weights. None reads config.json.
            dtype: only float32, since codes depend on it.
            device_map: one device, or "auto" (cuda, mps, cpu).
            options: `revision`, `token`, `cache_dir`, `local_files_only`, `subfolder`.
        Raises:
            TypeError: unknown option.
            ValueError: another dtype or other settings than the weights have.
            FileNotFoundError: no such folder, and no such hub model in reach.
        """
        hub = {key: options.pop(key) for key in HUB if options.get(key) is not None}
        unknown = sorted(set(options) - set(HUB) - set(FROM_AUTO))
        if unknown:
            raise TypeError(f"{cls.__name__}.from_pretrained has no {', '.join(unknown)}")
        if dtype not in (None, "auto", "float32", torch.float32):
            raise ValueError(f"dtype = {dtype}: codes depend on it; only float32 is supported")
        codec = StftCodec.from_pretrained(pretrained_model_name_or_path, **hub)
        if config is None:
            config = StftCodecConfig(architectures=["StftCodecModel"], **codec.model.config)
        for name, value in codec.model.config.items():
            if getattr(config, name, value) != value:
                raise ValueError(
                    f"config has {name} = {getattr(config, name)!r}, but the weights "
                    f"{value!r}: leave config out"
                )
        model = cls(config, codec).eval()
        if device_map is not None:
            model.to(pick_device(device_map))
        return model

    def save_pretrained(  # type: ignore[override]
        self, save_directory: str | Path, card: ModelCardFacts | None = None
    ) -> None:
        """Save a folder as `StftCodec.save_pretrained` does."""
        self.codec.save_pretrained(save_directory, card)

    def encode(
        self,
        input_values: Tensor,
        padding_mask: Tensor | None = None,
        n_quantizers: int | None = None,
    ) -> StftCodecOutput:
        """Quantize audio.

        Args:
            input_values: [B, 1, N] or [B, N] float in [-1, 1] at `config.sampling_rate` Hz.
            padding_mask: [B, N], 1 for audio and 0 for the padding on its right. Padding does not
                change the codes of the audio.
            n_quantizers: levels to keep; None keeps all.
        Returns:
            `audio_codes` int64 [B, K, T], T = ceil(N / hop_length).
        """
        waveform = input_values[:, None] if input_values.ndim == 2 else input_values
        lengths = None if padding_mask is None else _lengths(padding_mask)
        return StftCodecOutput(self.codec.encode(waveform, n_quantizers, lengths))

    def decode(self, audio_codes: Tensor, padding_mask: Tensor | None = None) -> StftCodecOutput:
        """Decode codes.

        Args:
            audio_codes: int64 [B, k, T].
            padding_mask: [B, N], as for `encode`; the result has its length N.
        Returns:
            `audio_values` float32 [B, 1, N], N = T * hop_length without a mask.
        """
        n_samples = None if padding_mask is None else padding_mask.shape[-1]
        return StftCodecOutput(audio_values=self.codec.decode(audio_codes, n_samples))

    def forward(self, input_values: Tensor, padding_mask: Tensor | None = None) -> StftCodecOutput:
        """Encode and decode: `audio_codes` [B, K, T] and `audio_values` [B, 1, N]."""
        encoded = self.encode(input_values, padding_mask)
        decoded = self.codec.decode(encoded["audio_codes"], input_values.shape[-1])
        return StftCodecOutput(encoded["audio_codes"], decoded)


def _settings(config: StftCodecConfig) -> dict[str, Any]:
    return {name: getattr(config, name) for name in SETTINGS if hasattr(config, name)}


def _lengths(mask: Tensor) -> list[int]:
    """Return the number of samples of each item; raise ValueError if padding is on the left."""
    mask = mask.flatten(1).bool()
    lengths = mask.sum(1)
    if not torch.equal(mask, torch.arange(mask.shape[1], device=mask.device) < lengths[:, None]):
        raise ValueError("padding_mask has padding before or between audio: pad on the right")
    return [int(n) for n in lengths]
