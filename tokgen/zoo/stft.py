"""An STFT-domain codec that trains on a laptop.

All learned layers run at the frame rate, so a second of audio costs about 50 frames of matrix
products, where a waveform codec needs thousands. Long audio goes through in overlapping windows.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokgen.codec.checks import check_codes_layout, check_layout
from tokgen.codec.spec import CodecSpec, Encoded, Quantized
from tokgen.codec.stages import WindowedCodec
from tokgen.codec.windows import Reach, run_whole
from tokgen.quantizers.beam import Level, search_codes
from tokgen.zoo.loading import PretrainedCodec, refuse_bandwidth
from tokgen.zoo.networks.stft import StftCodecModel

__all__ = ["WINDOW_FRAMES", "StftCodec"]

WINDOW_FRAMES = 1000


class StftCodec(PretrainedCodec, WindowedCodec):
    """`StftCodecModel` as a `Codec`."""

    model: StftCodecModel
    library = "tokgen"
    trained_dtype = torch.float16

    def __init__(self, model: StftCodecModel, spec: CodecSpec) -> None:
        super().__init__(model, spec)
        self.window_frames = WINDOW_FRAMES
        around = [stack.reach + model.spectrum.reach for stack in (model.encoder, model.decoder)]
        self.encoder_reach, self.decoder_reach = (Reach(n, n) for n in around)

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        refuse_bandwidth(bandwidth)
        names = ("sample_rate", "hop_length", "n_codebooks", "codebook_size")
        return {name: config[name] for name in names}

    @classmethod
    def config_of(cls, model: StftCodecModel) -> dict[str, Any]:
        return {**model.config, "model_type": "stft"}

    @classmethod
    def load_model(cls, folder: Path) -> StftCodecModel:
        return StftCodecModel.from_pretrained(folder)

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        return Encoded(run_whole([self._encoder_windows(None, lengths)], waveform))

    def _encode_window(self, waveform: Tensor, first: int, lengths: list[int] | None) -> Tensor:
        if lengths is not None:
            start, size = first * self.spec.hop_length, waveform.shape[-1]
            lengths = [min(max(0, n - start), size) for n in lengths]
        return self.model.encode_latents(waveform, lengths)

    def encode_latents(self, waveform: Tensor) -> Tensor:
        check_layout(waveform)
        return self.model.encode_latents(waveform)

    def project(self, latents: Tensor) -> Tensor:
        return self.model.quantizer.encode(latents)[1]

    def quantize(self, latents: Tensor) -> Tensor:
        greedy = self.model.quantizer.encode(latents)[0]
        if self.search is None:
            return greedy
        return search_codes(self.search_levels(), latents, greedy, self.search)

    def search_levels(self) -> list[Level]:
        return self.model.quantizer.search_levels()

    def codebook_rows(self, codes: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        return self.model.quantizer.codebook_rows(codes)

    def dequantize(self, codes: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        return self.model.quantizer.decode(codes)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        return self.model.decode_latents(quantized)

    def quantize_through(self, latents: Tensor) -> Quantized:
        return self.model.quantizer(latents)

    def code_vectors(self) -> Tensor:
        return self.model.quantizer.code_vectors()

    def save_model(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Save the network, in half precision if that changes no weight."""
        weights = [w for w in self.model.state_dict().values() if w.is_floating_point()]
        if dtype is None and all(torch.equal(w, w.half().to(w.dtype)) for w in weights):
            dtype = torch.float16
        self.model.save_pretrained(folder, dtype=dtype)
