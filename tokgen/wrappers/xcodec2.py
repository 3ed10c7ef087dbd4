"""X-Codec2 (Ye et al. 2025, "Llasa") and NeuCodec as transformers runs them.

Both code one level of scalar-quantized frames. An acoustic encoder hears the audio, a
Wav2Vec2-BERT its normalised mel spectrum, which the library's feature extractor computes; its
settings follow from config.json, and a preprocessor_config.json that disagrees is refused.

NeuCodec hears 16 kHz and speaks 24 kHz. Its spec is at the rate it speaks; audio is resampled
once on the way in, and never on the way out.

Same audio, same codes: the spectrum is normalised, and attended to, over the whole clip, so
every item is encoded alone at its true length, in one piece, and decoded in one piece. The
attention of Wav2Vec2-BERT takes memory that grows with the square of the length, gigabytes for
a minute with the public weights: cut long recordings into utterances first.

The features are computed outside the network, so gradients do not reach the waveform, and the
stages stay closed.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from tokgen.audio import resample
from tokgen.codec import Codec, CodecSpec, Encoded, Side, fit_length, hash_weights
from tokgen.pretrained import resolve_folder
from tokgen.torchaudio_shim import import_torchaudio
from tokgen.wrappers.loading import load_model

EXTRACTOR_CONFIG = "preprocessor_config.json"


class Xcodec2Codec(Codec):
    """`transformers.Xcodec2Model` as a `Codec`.

    Attributes:
        extractor: makes what the network hears from audio at the rate it hears.
    """

    prefix: ClassVar[str] = "Xcodec2"  # of transformers' classes
    rates: ClassVar = ("sampling_rate", "sampling_rate")  # in config.json: heard, and spoken
    model: Any

    def __init__(self, model: Any, spec: CodecSpec, extractor: Any) -> None:
        self.model, self.spec, self.extractor = model, spec, extractor

    @classmethod
    def from_model(cls, model: Any, name: str | None = None, **spec: str | None) -> Xcodec2Codec:
        """Wrap a model.

        Raises:
            ValueError: frames of another length than the feature extractor makes.
        """
        c = model.config
        name = name or c.model_type
        heard, spoken = (getattr(c, rate) for rate in cls.rates)
        extractor = cls.transformers_class("FeatureExtractor")(
            sampling_rate=heard, hop_length=math.prod(c.downsampling_ratios)
        )
        heard_hop = extractor.frame_shift * extractor.stride
        if extractor.hop_length != heard_hop:
            raise ValueError(
                f"{name}: downsampling_ratios make frames of {extractor.hop_length} samples, the "
                f"feature extractor frames of {heard_hop}; config.json must agree with it"
            )
        full = CodecSpec(
            name,
            sample_rate=spoken,
            hop_length=c.hop_length,
            n_codebooks=1,
            codebook_size=math.prod(c.quantization_levels),
            weight_hash=hash_weights(model),
            library="transformers",
            **spec,  # type: ignore[arg-type]
        )
        return cls(model.eval(), full, extractor)

    @classmethod
    def from_pretrained(
        cls,
        source: str | Path,
        revision: str | None = None,
        *,
        name: str | None = None,
        licence: str = "",
    ) -> Xcodec2Codec:
        """From a folder that the model's `save_pretrained` wrote, or a hub id, in float32.

        Raises:
            FileNotFoundError: neither a folder nor a hub model in reach.
            ValueError: another model's config, weights that do not fit, or a feature extractor
                that does not fit.
        """
        model, label = load_model(cls.transformers_class("Model"), source, revision)
        codec = cls.from_model(model, name or label, revision=revision, licence=licence)
        check_extractor(resolve_folder(source, revision) / EXTRACTOR_CONFIG, codec.extractor)
        return codec

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        n_frames = self.spec.n_frames(waveform.shape[-1])
        codes = torch.zeros(len(lengths), 1, n_frames, dtype=torch.long, device=waveform.device)
        for item, audio, n in zip(codes, waveform, lengths, strict=True):
            heard = self._heard(audio[0, :n]).cpu()
            inputs = self.extractor(
                heard, sampling_rate=self.extractor.sampling_rate, return_tensors="pt"
            )
            frames = self.model.encode(**inputs.to(self.device)).audio_codes[0]
            own = self.spec.n_frames(n)
            item[:, :own] = frames[:, :own]
        return Encoded(codes)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.model.decode(audio_codes=codes).audio_values

    def code_vectors(self) -> Tensor:
        return self.model.quantizer.quantizer.codebook[None]

    def _heard(self, waveform: Tensor) -> Tensor:
        """[N] at the spec's rate -> [N'] as the extractor takes it, for n_frames(N) or more."""
        return waveform

    @classmethod
    def transformers_class(cls, suffix: str) -> Any:
        """transformers' "Model", "Config" or "FeatureExtractor" of this codec."""
        import_torchaudio()  # which transformers imports beside it
        import transformers

        return getattr(transformers, cls.prefix + suffix)


class NeuCodecCodec(Xcodec2Codec):
    """`transformers.NeuCodecModel` as a `Codec`, at the rate of its output.

    Its extractor makes a frame for whole frames only, so audio is padded with zeros to them.
    """

    prefix = "NeuCodec"
    rates = ("input_sampling_rate", "output_sampling_rate")

    def _heard(self, waveform: Tensor) -> Tensor:
        whole = self.spec.n_frames(len(waveform)) * self.spec.hop_length
        heard_rate = self.extractor.sampling_rate
        return resample(fit_length(waveform, whole), self.spec.sample_rate, heard_rate)


def check_extractor(path: Path, extractor: Any) -> None:
    """Refuse a preprocessor_config.json that asks for other features; none is fine.

    Raises:
        ValueError: it cannot be read, or its rate or hop is not the extractor's.
    """
    if not path.is_file():
        return
    try:
        settings = json.loads(path.read_text())
        found = {key: settings.get(key) for key in ("sampling_rate", "hop_length")}
    except (OSError, ValueError, AttributeError) as error:
        raise ValueError(f"{path} cannot be read: {error}") from error
    for key, value in found.items():
        needed = getattr(extractor, key)
        if value not in (None, needed):
            raise ValueError(
                f"{path}: {key} = {value!r}, but config.json beside it makes it {needed}; "
                "one of the two belongs to another model"
            )
