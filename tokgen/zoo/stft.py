"""An STFT-domain codec that trains on a laptop.

All learned layers run at the frame rate, so a second of audio costs about 50 frames of matrix
products, where a waveform codec needs thousands. Long audio goes through in overlapping windows.

The causal codec has a latency of one window of its spectrum (40 ms at 16 kHz). It computes codes
and audio in chunks of 16 frames, as `tokgen.codec.steps` describes, for whole files and for streams
alike, so a stream equals the whole file to the bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.checks import check_codes_layout, check_layout
from tokgen.codec.depth import split_row
from tokgen.codec.piecewise import LiveCodec
from tokgen.codec.spec import CodecSpec, Encoded, Quantized
from tokgen.codec.stages import WindowedCodec
from tokgen.codec.steps import Steps
from tokgen.codec.windows import BlockDecoder, BlockEncoder, Reach, fit_length, run_whole
from tokgen.nn.dense import only_inputs
from tokgen.quantizers.beam import Level, search_codes
from tokgen.quantizers.residual import ResidualQuantizer
from tokgen.zoo.loading import PretrainedCodec, choose_bandwidth
from tokgen.zoo.networks.causal import CausalStack
from tokgen.zoo.networks.stft import StftCodecModel

__all__ = ["WINDOW_FRAMES", "CausalStftCodec", "StftCodec"]

WINDOW_FRAMES = 1000


class StftCodec(PretrainedCodec, WindowedCodec):
    """`StftCodecModel` as a `Codec`."""

    model: StftCodecModel
    library = "tokgen"
    trained_dtype = torch.float16
    decoder_parts = ("decoder.",)

    def __init__(self, model: StftCodecModel, spec: CodecSpec) -> None:
        super().__init__(model, spec)
        self.window_frames = WINDOW_FRAMES
        if model.importance is not None:
            self.importance_reach = model.importance.reach
        edge = model.spectrum.reach
        stacks = (model.encoder, model.decoder)
        self.encoder_reach, self.decoder_reach = (
            Reach(stack.before + edge, stack.after + edge) for stack in stacks
        )

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        names = ("sample_rate", "hop_length", "n_codebooks", "codebook_size")
        numbers = {name: config[name] for name in names}
        if bandwidth is not None:
            frame_rate = config["sample_rate"] / config["hop_length"]
            per_level = frame_rate * math.log2(config["codebook_size"]) / 1000
            kbps = [round(k * per_level, 4) for k in range(1, config["n_codebooks"] + 1)]
            numbers["n_codebooks"] = 1 + kbps.index(choose_bandwidth(kbps, bandwidth))
        if config.get("causal"):
            ahead = config.get("lookahead", 0) * config["hop_length"]
            numbers["latency_samples"] = config["n_fft"] + ahead
        return numbers

    @classmethod
    def class_for(cls, config: dict[str, Any]) -> type[StftCodec]:
        return CausalStftCodec if config.get("causal") else StftCodec

    @classmethod
    def config_of(cls, model: StftCodecModel) -> dict[str, Any]:
        return {**model.config, "model_type": "stft"}

    @classmethod
    def load_model(cls, folder: Path) -> StftCodecModel:
        return StftCodecModel.from_pretrained(folder)

    @property
    def variable(self) -> bool:
        return self.model.importance is not None

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        return Encoded(run_whole([self._encoder_windows(None, lengths)], waveform))

    def _encode_with_importance(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        return split_row(run_whole([self._importance_windows(None, lengths)], waveform))

    def _encode_window(self, waveform: Tensor, first: int, lengths: list[int] | None) -> Tensor:
        return self.model.encode_latents(waveform, self._inside(waveform, first, lengths))

    def _window_importance(
        self, waveform: Tensor, first: int, lengths: list[int] | None
    ) -> tuple[Tensor, Tensor]:
        inside = self._inside(waveform, first, lengths)
        return self.model.encode_with_importance(waveform, inside)

    def _inside(self, window: Tensor, first: int, lengths: list[int] | None) -> list[int] | None:
        """Return the samples of each item in a window that begins with a frame."""
        if lengths is None:
            return None
        start, size = first * self.spec.hop_length, window.shape[-1]
        return [min(max(0, n - start), size) for n in lengths]

    def encode_latents(self, waveform: Tensor) -> Tensor:
        check_layout(waveform)
        return self.model.encode_latents(waveform)

    def search_latents(self, waveform: Tensor) -> Tensor:
        with only_inputs():
            return self.encode_latents(waveform)

    def project(self, latents: Tensor) -> Tensor:
        projected = self.model.quantizer.encode(latents)[1]
        return projected[:, : projected.shape[1] * self.spec.n_codebooks // self._n_levels]

    def quantize(self, latents: Tensor) -> Tensor:
        return self._quantize(latents)

    def _quantize(self, latents: Tensor, **computed: Sequence[Tensor]) -> Tensor:
        """Quantize as `quantize`; `computed` goes to the `encode` of the quantizer."""
        greedy = self.model.quantizer.encode(latents, **computed)[0][:, : self.spec.n_codebooks]
        if self.search is None:
            return greedy
        return search_codes(self.search_levels(), latents, greedy, self.search)

    def search_levels(self) -> list[Level]:
        return self.model.quantizer.search_levels()[: self.spec.n_codebooks]

    def codebook_rows(self, codes: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        return self.model.quantizer.codebook_rows(codes)

    def dequantize(self, codes: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        return self.model.quantizer.decode(codes)

    def dequantize_to(self, codes: Tensor, depth: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        return self.model.quantizer.decode(codes, depth)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        return self.model.decode_latents(quantized)

    @torch.no_grad()
    def excerpt_roundtrip(self, waveform: Tensor) -> Tensor:
        if self.rate is not None:
            return super().excerpt_roundtrip(waveform)
        latents = self.model.encode_latents(waveform.to(self.device), widen=False)
        quantized = self.dequantize(self.quantize(latents))
        return fit_length(self.model.decode_latents(quantized, widen=False), waveform.shape[-1])

    def quantize_through(self, latents: Tensor) -> Quantized:
        if self.spec.n_codebooks < self._n_levels:
            return super().quantize_through(latents)
        return self.model.quantizer(latents)

    @property
    def _n_levels(self) -> int:
        """Levels of the network; a bandwidth selects the first of them."""
        return self.model.config["n_codebooks"]

    def code_vectors(self) -> Tensor:
        return self.model.quantizer.code_vectors()[: self.spec.n_codebooks]

    def save_model(self, folder: Path, dtype: torch.dtype | None) -> None:
        """Save the network, in half precision if that changes no weight."""
        weights = [w for w in self.model.state_dict().values() if w.is_floating_point()]
        if dtype is None and all(torch.equal(w, w.half().to(w.dtype)) for w in weights):
            dtype = torch.float16
        self.model.save_pretrained(folder, dtype=dtype)


class CausalStftCodec(LiveCodec, StftCodec):
    """A causal `StftCodecModel` as a `Codec`."""

    def live_encoder(self) -> BlockEncoder:
        return BlockEncoder(self._encoder_steps(quantize=True))

    def live_decoder(self) -> BlockDecoder:
        return BlockDecoder(self._decoder_steps(self.dequantize))

    def encode_latents(self, waveform: Tensor) -> Tensor:
        check_layout(waveform)
        if torch.is_grad_enabled():
            return self.model.encode_latents(waveform)
        return _each(lambda: self._encoder_steps(quantize=False), waveform)

    def decode_latents(self, quantized: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return self.model.decode_latents(quantized)
        return _each(lambda: self._decoder_steps(lambda x: x), quantized)

    def _encoder_steps(self, *, quantize: bool) -> Steps:
        spectrum, hop = self.model.spectrum, self.spec.hop_length
        stack = cast(CausalStack, self.model.encoder)
        directions: list[Tensor] = []  # computed once

        def run(audio: Tensor, past: Any, first: int, n_frames: int) -> tuple[Tensor, Any]:
            latents, past = stack.step(spectrum.analyse_padded(audio), past or [])
            latents = F.layer_norm(latents.float(), latents.shape[-1:]).mT
            if not quantize:
                return latents, past
            if isinstance(self.model.quantizer, ResidualQuantizer):
                directions[:] = directions or self.model.quantizer.directions()
                return self._quantize(latents, directions=directions), past
            return self._quantize(latents), past

        edge = spectrum.edge
        around = {"before": edge, "after": spectrum.n_fft - hop - edge}
        return Steps(run, hop_in=hop, delay=self.model.lookahead, **around)

    def _decoder_steps(self, dequantize: Callable[[Tensor], Tensor]) -> Steps:
        spectrum, stack = self.model.spectrum, cast(CausalStack, self.model.decoder)

        def run(codes: Tensor, past: Any, first: int, n_frames: int) -> tuple[Tensor, Any]:
            past, before = past or ([], None)
            features, past = stack.step(dequantize(codes).mT, past)
            audio, before = spectrum.overlap(
                spectrum.frames(features.float()), before, first, n_frames
            )
            return audio, (past, before)

        hop, overlap = self.spec.hop_length, spectrum.n_fft // self.spec.hop_length - 1
        return Steps(run, hop_out=hop, delay=spectrum.edge, memory=stack.before + overlap)


def _each(steps: Callable[[], Steps], batch: Tensor) -> Tensor:
    """Run the items of a batch one by one, since a batch can round otherwise."""
    return torch.cat([run_whole([steps()], item) for item in batch.split(1)])
