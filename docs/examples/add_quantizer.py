"""Finite scalar quantization (Mentzer et al. 2023) in the place of a residual quantizer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tokgen.codec.spec import Quantized
from tokgen.zoo.networks.stft import StftCodecModel


class FiniteScalarQuantizer(nn.Module):
    """One level: project D -> d, round each of the d numbers to a few values, project d -> D.

    Args:
        latent_dim: D.
        values: number of values of each of the d dimensions, all odd. Their product is the
            codebook's size.
    """

    half_range: Tensor
    places: Tensor

    def __init__(self, latent_dim: int, values: tuple[int, ...] = (7, 5, 5, 5)) -> None:
        super().__init__()
        if any(n % 2 == 0 for n in values):
            raise ValueError(f"values {values}: give odd numbers, so that 0 is one of the values")
        self.in_proj = nn.Linear(latent_dim, len(values))
        self.out_proj = nn.Linear(len(values), latent_dim)
        places = [math.prod(values[:i]) for i in range(len(values))]
        self.register_buffer("half_range", torch.tensor([n // 2 for n in values]), persistent=False)
        self.register_buffer("places", torch.tensor(places), persistent=False)
        self.codebook_size = math.prod(values)

    def forward(self, latents: Tensor) -> Quantized:
        """Quantize latents [B, D, T] with the straight-through gradient. No loss is needed."""
        projected = self.in_proj(latents.mT).tanh() * self.half_range
        rounded = projected + (projected.round() - projected).detach()
        zero = latents.new_zeros(())
        codes = self._codes(projected)[:, None]
        return Quantized(self.out_proj(rounded).mT, codes, projected.mT, zero, zero)

    def encode(self, latents: Tensor) -> tuple[Tensor, Tensor]:
        """latents [B, D, T] -> codes [B, 1, T], projected_latents [B, d, T]."""
        projected = self.in_proj(latents.mT).tanh() * self.half_range
        return self._codes(projected)[:, None], projected.mT

    def codebook_rows(self, codes: Tensor) -> Tensor:
        """codes [B, 1, T] -> rows [B, d, T]."""
        return self._rows(codes[:, 0]).mT

    def decode(self, codes: Tensor) -> Tensor:
        """codes [B, 1, T] -> quantized [B, D, T]."""
        return self.out_proj(self._rows(codes[:, 0])).mT

    def code_vectors(self) -> Tensor:
        """The codebook [1, codebook_size, d]."""
        return self._rows(torch.arange(self.codebook_size, device=self.half_range.device))[None]

    def _codes(self, projected: Tensor) -> Tensor:
        return ((projected.round().long() + self.half_range) * self.places).sum(-1)

    def _rows(self, codes: Tensor) -> Tensor:
        digits = codes[..., None] // self.places % (2 * self.half_range + 1)
        return (digits - self.half_range).float()


def make_model(width: int = 320, values: tuple[int, ...] = (7, 5, 5, 5)) -> StftCodecModel:
    """Make tokgen's STFT codec with this quantizer. `StftCodec.from_model` wraps it as a codec."""
    model = StftCodecModel(width=width, n_codebooks=1, codebook_size=math.prod(values))
    model.quantizer = FiniteScalarQuantizer(64, values)  # type: ignore[assignment]
    return model
