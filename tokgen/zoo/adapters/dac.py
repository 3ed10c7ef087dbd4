"""DAC as transformers runs it (Kumar et al. 2023, "High-Fidelity Audio Compression with
Improved RVQGAN").

Audio is padded with zeros to whole frames, which also lifts the shortest clip to what the
convolutions need. A decoder with an odd stride gives a few samples less than T * hop_length;
the end is padded back, so lengths hold; its delay is left as it is.

Same audio, same codes: on a CPU every item is encoded alone, since batching convolutions gains
nothing there and may round differently. On a GPU items go together, and whatever lies past an
item's end is zeroed before every convolution, as the zero padding of a lone item would be.
Audio longer than a window is coded in windows that overlap by the network's whole field of
view: same codes, bounded memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tokgen.codec.blocks import BlockDecoder, BlockEncoder
from tokgen.codec.spec import CodecSpec, Encoded, Quantized, Side
from tokgen.codec.stages import StagedCodec
from tokgen.codec.windows import (
    Conv,
    Reach,
    Windows,
    decoder_reach,
    encoder_reach,
    fit_length,
    run_whole,
)
from tokgen.zoo.adapters.dac_cpu import adapt
from tokgen.zoo.loading import TransformersCodec, _refuse

if TYPE_CHECKING:
    from transformers import DacConfig, DacModel

WINDOW_SAMPLES = 100_000  # of a window; the widest layers take some 3 kB for each
WHOLE_SECONDS = 20.0  # clips of so much go through the encoder whole, as transformers takes them


class DacCodec(TransformersCodec, StagedCodec):
    """`transformers.DacModel` as a `Codec`, with every stage open.

    Attributes:
        window_frames: longer audio is coded in windows of so many frames.
        whole_frames: an encoder takes so many as one window.
        encoder_reach, decoder_reach: what a frame of codes, and one of audio, depends on.
    """

    model: DacModel
    model_class = "DacModel"

    @staticmethod
    def numbers(config: dict[str, Any], bandwidth: float | None = None) -> dict[str, Any]:
        """Numbers of a DAC, which has one bitrate."""
        _refuse(bandwidth)
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

    # -- verbs ---------------------------------------------------------------

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        n_frames = self.spec.n_frames(waveform.shape[-1])
        together = self.device.type != "cpu" and n_frames <= self.whole_frames
        if together and len(lengths) > 1:
            return Encoded(self._encode_together(waveform, lengths))
        codes = torch.zeros(
            len(lengths), self.spec.n_codebooks, n_frames, dtype=torch.long, device=waveform.device
        )
        for item, audio, n in zip(codes, waveform, lengths, strict=True):
            item[:, : self.spec.n_frames(n)] = self._encode_alone(audio[None, :, :n])[0]
        return Encoded(codes)

    def _encode_alone(self, waveform: Tensor) -> Tensor:
        """[1, 1, N] -> [1, K, T], window after window."""
        return run_whole([self._encoder_windows(None)], waveform)

    def _encode_together(self, waveform: Tensor, lengths: list[int]) -> Tensor:
        """[B, 1, N] of unequal lengths -> [B, K, T] in one pass."""
        ends = torch.tensor(lengths, device=waveform.device)
        inside = torch.arange(waveform.shape[-1], device=waveform.device) < ends[:, None]
        waveform = waveform * inside[:, None]
        frames = torch.tensor([self.spec.n_frames(n) for n in lengths], device=waveform.device)
        with _zero_past_end(self.model.encoder, frames, self.spec.n_frames(waveform.shape[-1])):
            latents = self.encode_latents(waveform)
        return self.quantize(latents)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return run_whole([self._decoder_windows(None)], codes)

    def block_encoder(self, step: int | None = None) -> BlockEncoder:
        return BlockEncoder(self._encoder_windows(step))

    def block_decoder(self, step: int | None = None) -> BlockDecoder:
        return BlockDecoder(self._decoder_windows(step))

    def _encoder_windows(self, step: int | None) -> Windows:
        def run(waveform: Tensor, first: int) -> Tensor:
            return self.quantize(self.encode_latents(waveform))

        hop, size = self.spec.hop_length, self.window_frames
        reach, whole = self.encoder_reach, self.whole_frames
        return Windows(run, reach, size=size, step=step, hop_in=hop, whole=whole)

    def _decoder_windows(self, step: int | None) -> Windows:
        def run(codes: Tensor, first: int) -> Tensor:
            return self.decode_latents(self.dequantize(codes))

        hop, size = self.spec.hop_length, self.window_frames
        return Windows(run, self.decoder_reach, size=size, step=step, hop_out=hop)

    # -- stages --------------------------------------------------------------

    def encode_latents(self, waveform: Tensor) -> Tensor:
        return self.model.encoder(self._whole_frames(waveform))

    def project(self, latents: Tensor) -> Tensor:
        return self.model.quantizer(latents)[2]

    def quantize(self, latents: Tensor) -> Tensor:
        return self.model.quantizer(latents)[1]

    def codebook_rows(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.from_codes(codes)[1]

    def dequantize(self, codes: Tensor) -> Tensor:
        return self.model.quantizer.from_codes(codes)[0]

    def decode_latents(self, quantized: Tensor) -> Tensor:
        n_samples = quantized.shape[-1] * self.spec.hop_length
        return fit_length(self.model.decoder(quantized), n_samples)

    def quantize_through(self, latents: Tensor) -> Quantized:
        quantized, codes, projected, commitment, codebook = self.model.quantizer(latents)
        return Quantized(quantized, codes, projected, commitment.mean(), codebook.mean())

    def code_vectors(self) -> Tensor:
        levels: Any = self.model.quantizer.quantizers
        return torch.stack([level.codebook.weight for level in levels])

    def _whole_frames(self, waveform: Tensor) -> Tensor:
        return fit_length(waveform, self.spec.n_frames(waveform.shape[-1]) * self.spec.hop_length)


@contextmanager
def _zero_past_end(encoder: nn.Module, frames: Tensor, total: int) -> Iterator[None]:
    """Zero what lies past each item's `frames` [B] of `total` before every convolution."""

    def mask(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        (x,) = inputs
        per_frame = x.shape[-1] // total  # activations of whole frames divide evenly
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
    """What a frame's latents, and a frame's samples, depend on."""
    residual = [Conv(7, dilation=d, left=3 * d) for d in (1, 3, 9)]
    encoder = [Conv(7, left=3)]
    for stride in config.downsampling_ratios:
        encoder += [*residual, Conv(2 * stride, stride, left=-(-stride // 2))]
    decoder = [Conv(7, left=3)]
    for stride in config.upsampling_ratios:
        decoder += [Conv(2 * stride, stride, left=-(-stride // 2), transposed=True), *residual]
    return encoder_reach([*encoder, Conv(3, left=1)]), decoder_reach([*decoder, Conv(7, left=3)])
