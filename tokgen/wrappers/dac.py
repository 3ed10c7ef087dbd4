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

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from tokgen.codec import CodecSpec, Encoded, Side, fit_length
from tokgen.quantizers.residual import Quantized
from tokgen.wrappers import dac_numbers
from tokgen.wrappers.loading import TransformersCodec

if TYPE_CHECKING:
    from transformers import DacConfig, DacModel

WINDOW_SECONDS = 20.0
_UNIT_REACH = 3 * (1 + 3 + 9)  # a residual block: kernels of 7, dilations 1, 3 and 9


class DacCodec(TransformersCodec):
    """`transformers.DacModel` as a `Codec`, with every stage open.

    Attributes:
        window_frames: longer audio is coded in windows of so many frames.
    """

    model: DacModel
    model_class = "DacModel"
    numbers = staticmethod(dac_numbers)

    def __init__(self, model: DacModel, spec: CodecSpec) -> None:
        super().__init__(model, spec)
        self.window_frames = max(1, round(WINDOW_SECONDS * spec.frame_rate))
        self.encoder_reach, self.decoder_reach = _reaches(model.config)

    # -- verbs ---------------------------------------------------------------

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        n_frames = self.spec.n_frames(waveform.shape[-1])
        together = self.device.type != "cpu" and n_frames <= self.window_frames
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
        hop, reach, size = self.spec.hop_length, self.encoder_reach, self.window_frames
        waveform = self._whole_frames(waveform)
        codes = []
        for start in range(0, waveform.shape[-1] // hop, size):
            first = max(0, start - reach)
            window = waveform[..., first * hop : (start + size + reach) * hop]
            latents = self.model.encoder(window)[..., start - first :][..., :size]
            codes.append(self.quantize(latents))
        return torch.cat(codes, dim=-1)

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
        """[B, k, T] -> [B, 1, T * hop], window after window."""
        hop, reach, size = self.spec.hop_length, self.decoder_reach, self.window_frames
        pieces = []
        for start in range(0, codes.shape[-1], size):
            first, stop = max(0, start - reach), min(start + size, codes.shape[-1])
            audio = self.decode_latents(self.dequantize(codes[..., first : stop + reach]))
            pieces.append(audio[..., (start - first) * hop : (stop - first) * hop])
        return torch.cat(pieces, dim=-1)

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


def _reaches(config: DacConfig) -> tuple[int, int]:
    """How many frames to either side a frame's latents, and a frame's samples, depend on."""
    hop = int(config.hop_length)
    encoder, step = 3 + hop, 1  # first convolution; last one, at the frame rate
    for stride in config.downsampling_ratios:
        encoder += step * (_UNIT_REACH + stride)
        step *= stride
    decoder, step = 3 + 3 * hop, hop
    for stride in config.upsampling_ratios:
        decoder += 2 * step
        step //= stride
        decoder += step * _UNIT_REACH
    return -(-encoder // hop), -(-decoder // hop)
