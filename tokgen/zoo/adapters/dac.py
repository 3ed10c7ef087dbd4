"""DAC as transformers runs it (Kumar et al. 2023, "High-Fidelity Audio Compression with Improved
RVQGAN").

Audio is padded with zeros to whole frames. On a CPU every item is encoded alone, because a batch
is no faster there and can round differently. On a GPU, samples past an item's end are set to zero
before every convolution. The decoder's delay is not corrected.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from tokgen.codec.batches import encode_each
from tokgen.codec.checks import check_codes_layout, check_layout
from tokgen.codec.depth import split_row
from tokgen.codec.spec import IMPORTANCE, CodecSpec, Encoded, Quantized
from tokgen.codec.stages import WindowedCodec, in_float32
from tokgen.codec.windows import (
    Conv,
    Reach,
    decoder_reach,
    encoder_reach,
    fit_length,
    run_whole,
)
from tokgen.nn.cards import ModelCardFacts
from tokgen.quantizers.beam import Level, factorized_level, search_codes
from tokgen.zoo.adapters.dac_cpu import adapt
from tokgen.zoo.adapters.dac_training import apply_weight_norm, fold_weight_norm, has_weight_norm
from tokgen.zoo.loading import TransformersCodec, refuse_bandwidth

if TYPE_CHECKING:
    from transformers import DacConfig, DacModel

    from tokgen.zoo.adapters.dac_variable import VariableDac

__all__ = ["WHOLE_SECONDS", "WINDOW_SAMPLES", "DacCodec", "quantize_through"]

WINDOW_SAMPLES = 100_000  # the widest layers need about 3 kB per sample
WHOLE_SECONDS = 20.0  # shorter clips are encoded in one window, as transformers encodes them


class DacCodec(TransformersCodec, WindowedCodec):
    """`transformers.DacModel` as a `Codec`."""

    model: DacModel
    model_class = "DacModel"
    decoder_parts = ("decoder.",)

    @classmethod
    def network_class(cls, config: dict[str, Any]) -> Any:
        if config.get("importance") is None:
            return super().network_class(config)
        from tokgen.zoo.adapters.dac_variable import VariableDac

        return VariableDac

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        refuse_bandwidth(bandwidth)
        return {
            "sample_rate": config["sampling_rate"],
            "hop_length": math.prod(config["downsampling_ratios"]),
            "n_codebooks": config["n_codebooks"],
            "codebook_size": config["codebook_size"],
        }

    def __init__(self, model: DacModel, spec: CodecSpec) -> None:
        super().__init__(model, spec)
        if torch.backends.mkldnn.is_available():
            adapt(model)
        self.window_frames = max(1, WINDOW_SAMPLES // spec.hop_length)
        self.whole_frames = round(WHOLE_SECONDS * spec.frame_rate)
        self.encoder_reach, self.decoder_reach = _reaches(model.config)
        if self.variable:
            self.importance_reach = self._network.importance.reach

    @property
    def variable(self) -> bool:
        return getattr(self.model, "importance", None) is not None

    @property
    def _network(self) -> VariableDac:
        return cast("VariableDac", self.model)

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        n_frames = self.spec.n_frames(waveform.shape[-1])
        if self._together(n_frames, lengths):
            with self._zero_past_end(lengths, n_frames):
                return Encoded(self.quantize(self.encode_latents(waveform)))

        def encode(audio: Tensor) -> Encoded:
            return Encoded(run_whole([self._encoder_windows(None)], audio))

        return encode_each(self, waveform, lengths, encode)

    def _encode_with_importance(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        n_frames = self.spec.n_frames(waveform.shape[-1])
        if self._together(n_frames, lengths):
            with self._zero_past_end(lengths, n_frames) as inside:
                whole = self._whole_frames(waveform)
                latents, importance = self._network.encode_with_importance(whole, inside)
                return Encoded(self.quantize(latents), {IMPORTANCE: importance})

        def encode(audio: Tensor) -> Encoded:
            return split_row(run_whole([self._importance_windows(None)], audio))

        return encode_each(self, waveform, lengths, encode)

    def _together(self, n_frames: int, lengths: list[int]) -> bool:
        """Return whether a batch is encoded in one pass."""
        on_gpu = self.device.type != "cpu"
        return on_gpu and n_frames <= self.whole_frames and len(lengths) > 1

    @contextmanager
    def _zero_past_end(self, lengths: list[int], n_frames: int) -> Iterator[Tensor]:
        """Zero what lies past the end of each item; gives a mask [B, T] of the frames inside."""
        frames = torch.tensor([self.spec.n_frames(n) for n in lengths], device=self.device)
        with _zero_past_end(self.model.encoder, frames, n_frames):
            yield torch.arange(n_frames, device=self.device) < frames[:, None]

    def _window_importance(
        self, waveform: Tensor, first: int, lengths: list[int] | None
    ) -> tuple[Tensor, Tensor]:
        return self._network.encode_with_importance(self._whole_frames(waveform))

    def encode_latents(self, waveform: Tensor) -> Tensor:
        check_layout(waveform)
        return self.model.encoder(self._whole_frames(waveform))

    def _whole_frames(self, waveform: Tensor) -> Tensor:
        """Pad a waveform with zeros to whole frames."""
        n_samples = self.spec.n_frames(waveform.shape[-1]) * self.spec.hop_length
        return fit_length(waveform, n_samples)

    @in_float32
    def project(self, latents: Tensor) -> Tensor:
        return self.model.quantizer(latents)[2]

    @in_float32
    def quantize(self, latents: Tensor) -> Tensor:
        greedy = self.model.quantizer(latents)[1]
        if self.search is None:
            return greedy
        return search_codes(self.search_levels(), latents, greedy, self.search)

    def search_levels(self) -> list[Level]:
        levels: Any = self.model.quantizer.quantizers
        return [factorized_level(level.codebook, level.in_proj, level.out_proj) for level in levels]

    def codebook_rows(self, codes: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        return self.model.quantizer.from_codes(codes)[1]

    @in_float32
    def dequantize(self, codes: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        return self.model.quantizer.from_codes(codes)[0]

    @in_float32
    def dequantize_to(self, codes: Tensor, depth: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        levels: Any = self.model.quantizer.quantizers
        total = torch.zeros(())
        for k, (level, indices) in enumerate(zip(levels, codes.unbind(1), strict=False)):
            rows = level.codebook(indices).mT
            total = total + (k < depth)[:, None] * level.out_proj(rows)
        return total

    def decode_latents(self, quantized: Tensor) -> Tensor:
        n_samples = quantized.shape[-1] * self.spec.hop_length
        return fit_length(self.model.decoder(quantized), n_samples)

    def quantize_through(self, latents: Tensor) -> Quantized:
        return quantize_through(self.model.quantizer, latents)

    def prepare_training(self, *, freeze_encoder: bool = False) -> None:
        """Apply weight norm to encoder and decoder."""
        frozen = ("quantizer", "encoder") if freeze_encoder else ("quantizer",)
        apply_weight_norm(self.model, frozen=frozen)

    def save_pretrained(
        self,
        folder: str | Path,
        card: ModelCardFacts | None = None,
        *,
        dtype: torch.dtype | None = None,
    ) -> None:
        """Save as `PretrainedCodec.save_pretrained`, with weight norm folded into the weights."""
        codec = self
        if has_weight_norm(self.model):
            codec = copy.copy(self)
            codec.model = fold_weight_norm(self.model)
        super(DacCodec, codec).save_pretrained(folder, card, dtype=dtype)

    def code_vectors(self) -> Tensor:
        levels: Any = self.model.quantizer.quantizers
        return torch.stack([level.codebook.weight for level in levels])


@in_float32
def quantize_through(quantizer: Any, latents: Tensor) -> Quantized:
    """Run transformers' `DacResidualVectorQuantizer` on latents [B, D, T]."""
    quantized, codes, projected, commitment, codebook = quantizer(latents)
    return Quantized(quantized, codes, projected, commitment.mean(), codebook.mean())


@contextmanager
def _zero_past_end(encoder: nn.Module, frames: Tensor, total: int) -> Iterator[None]:
    """Before every convolution, zero what lies past each item's `frames` [B] of `total`."""

    def mask(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = inputs
        per_frame = x.shape[-1] // total  # exact, because inputs are whole frames
        inside = torch.arange(x.shape[-1], device=x.device) < (frames * per_frame)[:, None]
        return (x * inside[:, None],)

    layers = [layer for layer in encoder.modules() if isinstance(layer, nn.Conv1d)]
    hooks = [layer.register_forward_pre_hook(mask) for layer in layers]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _reaches(config: DacConfig) -> tuple[Reach, Reach]:
    """Return the receptive fields of the encoder and the decoder."""
    residual = [Conv(7, dilation=d, left=3 * d) for d in (1, 3, 9)]
    encoder = [Conv(7, left=3)]
    for stride in config.downsampling_ratios:
        encoder += [*residual, Conv(2 * stride, stride, left=-(-stride // 2))]
    decoder = [Conv(7, left=3)]
    for stride in config.upsampling_ratios:
        decoder += [Conv(2 * stride, stride, left=-(-stride // 2), transposed=True), *residual]
    return encoder_reach([*encoder, Conv(3, left=1)]), decoder_reach([*decoder, Conv(7, left=3)])
