"""Base classes of codecs with a residual quantizer that neither projects nor normalises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokgen.codec.spec import CodecSpec, Encoded, Side
from tokgen.codec.stages import StagedCodec


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

    def project(self, latents: Tensor) -> Tensor:
        return torch.cat([residual for residual, _ in self._descend(latents)], dim=1)

    def quantize(self, latents: Tensor) -> Tensor:
        return torch.stack([indices for _, indices in self._descend(latents)], dim=1)

    def codebook_rows(self, codes: Tensor) -> Tensor:
        return torch.cat(self._rows(codes), dim=1)

    def dequantize(self, codes: Tensor) -> Tensor:
        rows = self._rows(codes)
        return sum(rows[1:], start=rows[0])

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


class ResidualCodec(ResidualLevels, StagedCodec):
    """A codec that encodes items one by one with its stages.

    Subclasses implement `levels`, `encode_latents` (with padding) and `decode_latents`.
    """

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        def encode(audio: Tensor) -> Tensor:
            return self.quantize(self.encode_latents(audio))

        return Encoded(self._encode_each(waveform, lengths, encode))

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.decode_latents(self.dequantize(codes))


def let_gradients_through(network: nn.Module) -> None:
    """Put LSTMs into training mode if gradients are on, as cuDNN requires.

    Without dropout, the mode does not change the results.
    """
    if torch.is_grad_enabled():
        for module in network.modules():
            if isinstance(module, nn.LSTM):
                module.train()
