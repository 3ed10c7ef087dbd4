"""Codecs whose stages are separate, differentiable methods, as tuning needs them.

The stages are named as in the Code Drift paper (eq. 1):

    x' = decode_latents . dequantize . quantize . encode_latents (x)
              f_d        f_dp . f_dq    f_q . f_p       f_e
"""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.spec import Quantized


class StagedCodec(Codec):
    """A codec that exposes its stages."""

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

    @abstractmethod
    def decode_latents(self, quantized: Tensor) -> Tensor:
        """f_d: quantized [B, D, T] -> waveform [B, 1, T * hop_length]."""

    def quantize_through(self, latents: Tensor) -> Quantized:
        """f_dp . f_dq . f_q . f_p with the straight-through gradient, for training.

        This default passes the gradient to `latents` unchanged. Some libraries have their own.
        """
        codes = self.quantize(latents)
        projected, rows = self.project(latents), self.codebook_rows(codes)
        quantized = latents + (self.dequantize(codes) - latents).detach()
        commitment = (projected - rows.detach()).square().mean()
        return Quantized(quantized, codes, projected, commitment, latents.new_zeros(()))


class UnsupportedStage(ValueError):
    """The codec does not expose its stages."""

    def __init__(self, name: str) -> None:
        super().__init__(
            f"{name} does not expose its stages, which tuning needs: use tokgen's STFT codec, "
            "DAC, X-Codec or EnCodec at 24 kHz; encode and decode work with this one"
        )


def check_stages(codec: Codec) -> StagedCodec:
    """Return `codec` if it exposes its stages.

    Raises:
        UnsupportedStage: it does not.
    """
    if not isinstance(codec, StagedCodec):
        raise UnsupportedStage(codec.spec.name)
    return codec
