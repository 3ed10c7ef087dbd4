"""X-Codec2 (Ye et al. 2025, "Llasa") and NeuCodec as transformers runs them.

Both have one level of scalar-quantized frames. transformers' feature extractor computes a mel
spectrum outside the network, so gradients do not reach the waveform, and the codecs do not expose
their stages. NeuCodec takes 16 kHz and returns 24 kHz; its spec has the output rate, and input
audio is resampled.

Every item is coded alone and in one piece, because the network attends over the whole clip. Memory
grows with the square of the length, to gigabytes for a minute with the public weights: cut long
recordings into utterances first.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor

from tokgen.audio.resampling import resample
from tokgen.codec.batches import encode_each
from tokgen.codec.spec import CodecSpec, Encoded, Side
from tokgen.codec.windows import fit_length
from tokgen.nn.files import read_json
from tokgen.zoo.loading import TransformersCodec, refuse_bandwidth
from tokgen.zoo.transformers_loading import from_transformers

__all__ = ["EXTRACTOR_CONFIG", "NeuCodecCodec", "Xcodec2Codec"]

EXTRACTOR_CONFIG = "preprocessor_config.json"


class Xcodec2Codec(TransformersCodec):
    """`transformers.Xcodec2Model` as a `Codec`."""

    model: Any
    model_class = "Xcodec2Model"
    decoder_parts = ("acoustic_decoder.",)
    extractor_class: ClassVar[str] = "Xcodec2FeatureExtractor"
    rates: ClassVar = ("sampling_rate", "sampling_rate")  # input and output, in config.json
    whole_reason = "normalises and attends over all of an utterance"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        refuse_bandwidth(bandwidth)
        input_hop = math.prod(config["downsampling_ratios"])
        levels = config["quantization_levels"]
        if min(levels) < 2:
            raise ValueError(f"quantization_levels = {levels}: each must be at least 2")
        output_rate = config.get("output_sampling_rate", config.get("sampling_rate"))
        return {
            "sample_rate": output_rate,
            "hop_length": input_hop * output_rate // config.get("input_sampling_rate", output_rate),
            "n_codebooks": 1,
            "codebook_size": math.prod(levels),
        }

    def __init__(self, model: Any, spec: CodecSpec) -> None:
        super().__init__(model, spec)
        hop_length = math.prod(model.config.downsampling_ratios)
        self.extractor = from_transformers(self.extractor_class)(
            sampling_rate=getattr(model.config, self.rates[0]), hop_length=hop_length
        )
        extractor_hop = self.extractor.frame_shift * self.extractor.stride
        if hop_length != extractor_hop:
            raise ValueError(
                f"{spec.name}: downsampling_ratios make frames of {hop_length} samples, the "
                f"feature extractor frames of {extractor_hop}; config.json must agree with it"
            )

    @classmethod
    def load_model(cls, folder: Path) -> Any:
        model = super().load_model(folder)
        path = folder / EXTRACTOR_CONFIG
        settings = read_json(path) if path.is_file() else {}
        hop_length = math.prod(model.config.downsampling_ratios)
        needed = {"sampling_rate": getattr(model.config, cls.rates[0]), "hop_length": hop_length}
        for key, value in needed.items():
            if settings.get(key) not in (None, value):
                raise ValueError(
                    f"{path}: {key} = {settings[key]!r}, but config.json beside it makes it "
                    f"{value}; one of the two files belongs to another model"
                )
        return model

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        def encode(audio: Tensor) -> Encoded:
            inputs = self.extractor(
                self._at_input_rate(audio[0, 0]).cpu(),
                sampling_rate=self.extractor.sampling_rate,
                return_tensors="pt",
            )
            codes = self.model.encode(**inputs.to(self.device)).audio_codes
            return Encoded(codes[..., : self.spec.n_frames(audio.shape[-1])])

        return encode_each(self, waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.model.decode(audio_codes=codes).audio_values

    def code_vectors(self) -> Tensor:
        return self.model.quantizer.quantizer.codebook[None]

    def _at_input_rate(self, waveform: Tensor) -> Tensor:
        """Convert [N] from the spec's rate to the extractor's, for at least n_frames(N) frames."""
        return waveform


class NeuCodecCodec(Xcodec2Codec):
    """`transformers.NeuCodecModel` as a `Codec`, at its output rate.

    Its extractor drops incomplete frames, so audio is padded with zeros to whole frames.
    """

    model_class = "NeuCodecModel"
    extractor_class = "NeuCodecFeatureExtractor"
    rates = ("input_sampling_rate", "output_sampling_rate")

    def _at_input_rate(self, waveform: Tensor) -> Tensor:
        whole = self.spec.n_frames(len(waveform)) * self.spec.hop_length
        input_rate = self.extractor.sampling_rate
        return resample(fit_length(waveform, whole), self.spec.sample_rate, input_rate)
