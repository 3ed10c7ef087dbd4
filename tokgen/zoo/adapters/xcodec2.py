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
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from tokgen.audio.files import resample
from tokgen.codec.spec import CodecSpec, Encoded, Side
from tokgen.codec.windows import fit_length
from tokgen.nn.pretrained import resolve_folder
from tokgen.zoo.loading import TransformersCodec, _refuse, from_transformers

EXTRACTOR_CONFIG = "preprocessor_config.json"


class Xcodec2Codec(TransformersCodec):
    """`transformers.Xcodec2Model` as a `Codec`.

    Attributes:
        extractor: makes what the network hears from audio at the rate it hears.
    """

    model: Any
    model_class = "Xcodec2Model"
    extractor_class: ClassVar[str] = "Xcodec2FeatureExtractor"
    rates: ClassVar = ("sampling_rate", "sampling_rate")  # in config.json: heard, and spoken
    whole_because = "normalises and attends over all of an utterance"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        """Numbers of an X-Codec2 or a NeuCodec, which have one bitrate."""
        _refuse(bandwidth)
        heard_hop = math.prod(config["downsampling_ratios"])
        spoken = config.get("output_sampling_rate", config.get("sampling_rate"))
        return {
            "sample_rate": spoken,
            "hop_length": heard_hop * spoken // config.get("input_sampling_rate", spoken),
            "n_codebooks": 1,
            "codebook_size": math.prod(config["quantization_levels"]),
        }

    def __init__(self, model: Any, spec: CodecSpec) -> None:
        super().__init__(model, spec)
        hop_length = math.prod(model.config.downsampling_ratios)
        self.extractor = from_transformers(self.extractor_class)(
            sampling_rate=getattr(model.config, self.rates[0]), hop_length=hop_length
        )
        heard_hop = self.extractor.frame_shift * self.extractor.stride
        if hop_length != heard_hop:
            raise ValueError(
                f"{spec.name}: downsampling_ratios make frames of {hop_length} samples, the "
                f"feature extractor frames of {heard_hop}; config.json must agree with it"
            )

    @classmethod
    def from_pretrained(
        cls, source: str | Path, revision: str | None = None, **options: Any
    ) -> Self:
        """As every codec of transformers.

        Raises:
            ValueError: also where a preprocessor_config.json asks for other features.
        """
        codec = super().from_pretrained(source, revision, **options)
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


class NeuCodecCodec(Xcodec2Codec):
    """`transformers.NeuCodecModel` as a `Codec`, at the rate of its output.

    Its extractor makes a frame for whole frames only, so audio is padded with zeros to them.
    """

    model_class = "NeuCodecModel"
    extractor_class = "NeuCodecFeatureExtractor"
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
