"""Codecs whose stages are separate, differentiable methods, as tuning needs them.

The stages are named as in the Code Drift paper (eq. 1):

    x' = decode_latents . dequantize . quantize . encode_latents (x)
              f_d        f_dp . f_dq    f_q . f_p       f_e
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.codec.batches import encode_each
from tokgen.codec.checks import check_codes_layout
from tokgen.codec.depth import Allocating, append_depth, append_row
from tokgen.codec.spec import DEPTH, CodecSpec, Encoded, Quantized, Side
from tokgen.codec.windows import BlockDecoder, BlockEncoder, Reach, Windows, run_whole

__all__ = [
    "TUNABLE",
    "ResidualCodec",
    "ResidualLevels",
    "StagedCodec",
    "WindowedCodec",
    "check_stages",
    "in_float32",
]

# Codecs that tuning takes, for errors
TUNABLE = "tokgen's STFT codec, DAC, EnCodec at 24 kHz, X-Codec, BigCodec or WavTokenizer"

_Owner = TypeVar("_Owner")
_Result = TypeVar("_Result")
_More = ParamSpec("_More")


def in_float32(
    method: Callable[Concatenate[_Owner, Tensor, _More], _Result],
) -> Callable[Concatenate[_Owner, Tensor, _More], _Result]:
    """Decorate a method or function of a quantizer so that it runs in float32 under autocast.

    bfloat16 would change codes. The first tensor is converted; without autocast nothing changes.
    """

    @wraps(method)
    def run(owner: _Owner, values: Tensor, *args: _More.args, **named: _More.kwargs) -> _Result:
        device = values.device.type
        if not torch.is_autocast_enabled(device):
            return method(owner, values, *args, **named)
        with torch.autocast(device, enabled=False):
            return method(
                owner, values.float() if values.is_floating_point() else values, *args, **named
            )

    return run


class StagedCodec(Codec):
    """A codec that exposes its stages.

    Stages check the layout of waveforms and codes, but not their values.
    """

    @abstractmethod
    def encode_latents(self, waveform: Tensor) -> Tensor:
        """f_e: waveform [B, 1, N] -> latents [B, D, T]."""

    @abstractmethod
    def project(self, latents: Tensor) -> Tensor:
        """f_p: latents [B, D, T] -> projected_latents [B, K*d, T] of all levels."""

    @abstractmethod
    def quantize(self, latents: Tensor) -> Tensor:
        """f_q . f_p: latents [B, D, T] -> codes [B, K, T]."""

    @abstractmethod
    def codebook_rows(self, codes: Tensor) -> Tensor:
        """f_dq: codes [B, K, T] -> the chosen codebook rows [B, K*d, T]."""

    @abstractmethod
    def dequantize(self, codes: Tensor) -> Tensor:
        """f_dp . f_dq: codes [B, k, T] -> quantized [B, D, T]."""

    def dequantize_to(self, codes: Tensor, depth: Tensor) -> Tensor:
        """Dequantize codes [B, k, T] of which each frame has the first levels, int64 [B, T]."""
        raise ValueError(f"{self.spec.name} has no variable bitrate")

    @abstractmethod
    def decode_latents(self, quantized: Tensor) -> Tensor:
        """f_d: quantized [B, D, T] -> waveform [B, 1, T * hop_length]."""

    def quantizer_modules(self) -> Sequence[nn.Module]:
        """Return the modules of the quantizer, which tuning freezes: f_p, f_q, f_dq and f_dp."""
        return _part(self.model, "quantizer")

    def encoder_modules(self) -> Sequence[nn.Module]:
        """Return the modules of the encoder f_e, which `freeze_encoder` freezes; maybe none."""
        return _part(self.model, "encoder")

    def prepare_training(self, *, freeze_encoder: bool = False) -> None:
        """Give encoder and decoder the form in which they train. Saving changes it back.

        Args:
            freeze_encoder: leave the encoder as it is, so that it keeps its weights to the bit.
        """

    @in_float32
    def quantize_through(self, latents: Tensor) -> Quantized:
        """f_dp . f_dq . f_q . f_p with the straight-through gradient, for training.

        This default passes the gradient to `latents` unchanged. Some libraries have their own.
        """
        codes = self.quantize(latents)
        projected, rows = self.project(latents), self.codebook_rows(codes)
        quantized = latents + (self.dequantize(codes) - latents).detach()
        commitment = (projected - rows.detach()).square().mean() * codes.shape[1]  # sum of levels
        return Quantized(quantized, codes, projected, commitment, latents.new_zeros(()))


def _part(model: nn.Module, name: str) -> list[nn.Module]:
    found = getattr(model, name, None)
    return [found] if isinstance(found, nn.Module) else []


class WindowedCodec(StagedCodec):
    """A codec whose networks have a finite receptive field.

    Attributes:
        window_frames: frames per window.
        whole_frames: shorter audio is encoded as one window.
        encoder_reach, decoder_reach: frames that a frame of codes, or of audio, depends on.
        importance_reach: frames on either side that the importance of a frame depends on besides.
    """

    window_frames: int
    whole_frames: int = 0
    encoder_reach: Reach
    decoder_reach: Reach
    importance_reach: int = 0

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return run_whole([self._decoder_windows(None)], self._with_depth(Encoded(codes, side)))

    def block_encoder(self, step: int | None = None) -> BlockEncoder:
        if self.rate is None:
            return BlockEncoder(self._encoder_windows(step))
        allocating = Allocating(self.rate, self.spec)
        windows = self._importance_windows(step)
        return BlockEncoder(windows, allocating, side={DEPTH: allocating.depths})

    def block_decoder(self, step: int | None = None) -> BlockDecoder:
        return BlockDecoder(self._decoder_windows(step), pack=self._with_depth)

    def _encoder_windows(self, step: int | None, lengths: list[int] | None = None) -> Windows:
        def run(waveform: Tensor, first: int) -> Tensor:
            return self.quantize(self._encode_window(waveform, first, lengths))

        hop, size, whole = self.spec.hop_length, self.window_frames, self.whole_frames
        return Windows(run, self.encoder_reach, size=size, step=step, hop_in=hop, whole=whole)

    def _importance_windows(self, step: int | None, lengths: list[int] | None = None) -> Windows:
        """Return windows whose output is that of `append_row`."""

        def run(waveform: Tensor, first: int) -> Tensor:
            latents, importance = self._window_importance(waveform, first, lengths)
            return append_row(self.quantize(latents), importance)

        hop, size, whole = self.spec.hop_length, self.window_frames, self.whole_frames
        reach, more = self.encoder_reach, self.importance_reach
        wide = Reach(reach.before + more, reach.after + more, reach.first)
        return Windows(run, wide, size=size, step=step, hop_in=hop, whole=whole)

    def _window_importance(
        self, waveform: Tensor, first: int, lengths: list[int] | None
    ) -> tuple[Tensor, Tensor]:
        """Return the latents of a window as `_encode_window`, and their importance [B, T]."""
        raise ValueError(f"{self.spec.name} has no variable bitrate")

    def _with_depth(self, encoded: Encoded) -> Tensor:
        """Return codes [B, k, T] with the depth as one more row, if the codec is variable."""
        return append_depth(encoded) if self.variable else encoded.codes

    def _decoder_windows(self, step: int | None) -> Windows:
        def run(codes: Tensor, first: int) -> Tensor:
            if self.variable:
                return self.decode_latents(self.dequantize_to(codes[:, :-1], codes[:, -1]))
            return self.decode_latents(self.dequantize(codes))

        hop, size = self.spec.hop_length, self.window_frames
        return Windows(run, self.decoder_reach, size=size, step=step, hop_out=hop)

    def _encode_window(self, waveform: Tensor, first: int, lengths: list[int] | None) -> Tensor:
        """Return the latents of a window of a batch; `first` is the window's first frame."""
        return self.encode_latents(waveform)


class ResidualLevels:
    """The stages between the latents and their quantized form.

    Each level chooses the row nearest to the residual of the levels before it. The residual
    serves as the level's projection, so d = D. Rows carry no gradient: the gradient of every
    projection reaches the latents unchanged.
    """

    spec: CodecSpec
    device: torch.device

    @property
    @abstractmethod
    def levels(self) -> Sequence[Any]:
        """Modules with `encode`: [B, D, T] -> indices [B, T], and its inverse `decode`."""

    @in_float32
    def project(self, latents: Tensor) -> Tensor:
        return torch.cat([residual for residual, _ in self._descend(latents)], dim=1)

    @in_float32
    def quantize(self, latents: Tensor) -> Tensor:
        return torch.stack([indices for _, indices in self._descend(latents)], dim=1)

    @in_float32
    def codebook_rows(self, codes: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        return torch.cat(self._rows(codes), dim=1)

    @in_float32
    def dequantize(self, codes: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        return _total(self._rows(codes))

    @in_float32
    def dequantize_to(self, codes: Tensor, depth: Tensor) -> Tensor:
        check_codes_layout(codes, self.spec)
        rows = self._rows(codes)
        return _total([(k < depth)[:, None] * row for k, row in enumerate(rows)])

    def code_vectors(self) -> Tensor:
        every = torch.arange(self.spec.codebook_size, device=self.device)[None]
        return torch.stack([level.decode(every)[0].mT for level in self.levels])

    def _descend(self, latents: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield each level's residual [B, D, T] and the indices [B, T] that it chooses."""
        residual = latents
        for level in self.levels:
            indices = level.encode(residual)
            yield residual, indices
            residual = residual - level.decode(indices)

    def _rows(self, codes: Tensor) -> list[Tensor]:
        """Return the rows [B, D, T] of each level of codes [B, k, T]."""
        pairs = zip(self.levels, codes.unbind(1), strict=False)
        return [level.decode(indices) for level, indices in pairs]


def _total(rows: Sequence[Tensor]) -> Tensor:
    return sum(rows[1:], start=rows[0])


class ResidualCodec(ResidualLevels, StagedCodec):
    """A codec that encodes items one by one with its stages.

    Subclasses implement `levels`, `encode_latents` (with padding) and `decode_latents`.
    """

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        def encode(audio: Tensor) -> Encoded:
            return Encoded(self.quantize(self.encode_latents(audio)))

        return encode_each(self, waveform, lengths, encode)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.decode_latents(self.dequantize(codes))


def check_stages(codec: Codec) -> StagedCodec:
    """Return `codec` if it exposes its stages; raise ValueError if it does not."""
    if not isinstance(codec, StagedCodec):
        raise ValueError(
            f"{codec.spec.name} does not expose its stages, which tuning needs: use {TUNABLE}; "
            "encode and decode work with this one"
        )
    return codec
