"""Codecs of a residual quantizer that neither projects nor normalises."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tokgen.codec.spec import CodecSpec, Encoded, Side
from tokgen.codec.stages import StagedCodec


class ResidualLevels:
    """Everything between the latents and their quantized form.

    Level k picks the row nearest to what the levels before it left over, which is what it
    "projects"; rows are as wide as the latents. Rows carry no gradient, so that of every
    level's projection reaches the latents as it is.
    """

    spec: CodecSpec
    device: torch.device

    @property
    @abstractmethod
    def levels(self) -> Sequence[Any]:
        """Modules with `encode`: [B, D, T] -> indices [B, T], and `decode`, the way back."""

    def project(self, latents: Tensor) -> Tensor:
        return torch.cat([rest for rest, _ in self._descend(latents)], dim=1)

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
        """Of each level: what it hears [B, D, T], and the indices [B, T] that it picks."""
        for level in self.levels:
            indices = level.encode(latents)
            yield latents, indices
            latents = latents - level.decode(indices)

    def _rows(self, codes: Tensor) -> list[Tensor]:
        """[B, D, T] of each of the k levels of codes [B, k, T]."""
        pairs = zip(self.levels, codes.unbind(1), strict=False)
        return [level.decode(indices) for level, indices in pairs]


class ResidualCodec(ResidualLevels, StagedCodec):
    """A codec made of its stages. Items are encoded one by one.

    Subclasses give `levels`, `encode_latents` (which pads) and `decode_latents`.
    """

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        n_frames = self.spec.n_frames(waveform.shape[-1])
        codes = torch.zeros(
            len(lengths), self.spec.n_codebooks, n_frames, dtype=torch.long, device=waveform.device
        )
        for item, audio, n in zip(codes, waveform, lengths, strict=True):
            latents = self.encode_latents(audio[None, :, :n])
            item[:, : self.spec.n_frames(n)] = self.quantize(latents)[0]
        return Encoded(codes)

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        return self.decode_latents(self.dequantize(codes))


def let_gradients_through(network: nn.Module) -> None:
    """cuDNN has no gradients for an LSTM in eval mode; without dropout the modes are the same."""
    if torch.is_grad_enabled():
        for module in network.modules():
            if isinstance(module, nn.LSTM):
                module.train()
