"""A small causal model of codes whose levels depend on each other, made for integer arithmetic.

A causal convolutional network reads the frames before t. Then one small network per level predicts
the code of that level from the result and the codes of the levels below it in frame t. The layers
are matrices, biases and ReLUs, so `tokgen.modelling.integer` can run them in integers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.modelling.causal import CausalModel
from tokgen.tokens.dataset import TokenDataset

__all__ = ["CausalDepthNetwork"]


class CausalDepthNetwork(CausalModel):
    """Predicts the levels of a frame one after another, from the levels below and earlier frames.

    Args:
        n_codebooks: levels K.
        codebook_size: codes V per level.
        dim: width C of the network over time.
        hidden: width of its residual blocks.
        dilations: frames between the taps of each block.
        taps: frames that a block reads: t, t - dilation, t - 2 dilation ...
        code_dim: width of the table of codes.
        level_hidden: width of the network of a level.
        head_dim: width of its output, which the scores of the codes are linear in.
        dropout: in the blocks and the networks of the levels.
        codec: the codec's `CodecSpec.as_dict()`.
    Attributes:
        reach: frames before t that the prediction of frame t depends on.
    """

    model_type = "tokgen_causal_depth_network"

    def __init__(
        self,
        *,
        n_codebooks: int,
        codebook_size: int,
        dim: int = 128,
        hidden: int = 256,
        dilations: Sequence[int] = (1, 2, 4, 8),
        taps: int = 3,
        code_dim: int = 32,
        level_hidden: int = 192,
        head_dim: int = 48,
        dropout: float = 0.0,
        codec: dict[str, Any] | None = None,
    ) -> None:
        settings = {k: v for k, v in locals().items() if k not in ("self", "__class__")}
        super().__init__({**settings, "dilations": list(dilations)})
        self.dilations, self.taps = tuple(dilations), taps
        self.reach = 1 + (taps - 1) * sum(dilations)
        levels = n_codebooks
        self.codes = nn.Parameter(torch.randn(levels, codebook_size, code_dim) * 0.1)
        self.to_time = _matrix(levels, code_dim, dim, gain=levels**-0.5)
        self.to_depth = _matrix(levels, code_dim, dim, gain=0.5**0.5)
        self.first = nn.Parameter(torch.zeros(dim))
        self.widen = nn.ModuleList(nn.Linear(taps * dim, hidden) for _ in dilations)
        self.narrow = nn.ModuleList(_narrow(hidden, dim) for _ in dilations)
        self.level_in = _matrix(levels, dim, level_hidden)
        self.level_bias = nn.Parameter(torch.zeros(levels, level_hidden))
        self.level_out = _matrix(levels, level_hidden, head_dim, gain=0.5)
        self.head = nn.Parameter(torch.randn(levels, codebook_size, head_dim) * 0.02)
        self.head_bias = nn.Parameter(torch.zeros(levels, codebook_size))
        self.drop = nn.Dropout(dropout)

    @classmethod
    def for_tokens(cls, codec: Codec, tokens: TokenDataset, **sizes: Any) -> Self:
        """Create a model for a token dataset. It begins with the codec's code vectors, if any."""
        model = super().for_tokens(codec, tokens, **sizes)
        vectors = codec.code_vectors()
        if vectors is not None:
            vectors = vectors[: model.n_codebooks].detach().cpu()
            vectors = vectors / vectors.square().mean((1, 2), keepdim=True).sqrt().clamp(min=1e-8)
            with torch.no_grad():
                for table, scale in ((model.codes, 1.0), (model.head, 0.3)):
                    width = min(vectors.shape[-1], table.shape[-1])
                    table[..., :width] += vectors[..., :width] * scale
        return model

    def forward(self, codes: Tensor) -> Tensor:
        """Compute the logits of all codes.

        Args:
            codes: int64 [B, n, T] with the first n levels, n at most K.
        Returns:
            [B, n, T, V]. Those of level k in frame t depend on frames before t, and on levels below
            k of frame t.
        Raises:
            ValueError: wrong number of levels.
        """
        return self._run(codes, [])

    @torch.no_grad()
    def largest_activation(self, codes: Tensor) -> float:
        """Largest magnitude of the inputs and outputs of all layers, without the logits.

        Args:
            codes: int64 [B, n, T].
        """
        seen: list[Tensor] = []
        self._run(codes, seen)
        return max(x.abs().max().item() for x in seen if x.numel())  # one level has none below

    def _run(self, codes: Tensor, seen: list[Tensor]) -> Tensor:
        """Compute the logits; append the activations to `seen`."""
        self.check_codes(codes)
        batch, levels, frames = codes.shape
        offset = torch.arange(levels, device=codes.device)[:, None, None] * self.codebook_size
        rows = (codes.transpose(0, 1) + offset).flatten()
        vectors = F.embedding(rows, self.codes.flatten(0, 1)).view(levels, batch * frames, -1)
        every = torch.bmm(vectors, self.to_time[:levels]).sum(0).view(batch, frames, -1)
        past = torch.cat([self.first.expand(batch, 1, -1), every[:, :-1]], 1)
        seen.append(past)
        for dilation, widen, narrow in zip(self.dilations, self.widen, self.narrow, strict=True):
            taps = [F.pad(past, (0, 0, i * dilation, 0))[:, :frames] for i in range(self.taps)]
            hidden = self.drop(F.relu(widen(torch.cat(taps, -1))))
            past = past + narrow(hidden)
            seen += [hidden, past]
        below = torch.bmm(vectors[:-1], self.to_depth[: levels - 1]).cumsum(0)
        x = past.flatten(0, 1) + F.pad(below, (0, 0, 0, 0, 1, 0))  # [n, B T, dim]
        bias = self.level_bias[:levels, None]
        hidden = self.drop(F.relu(torch.baddbmm(bias, x, self.level_in[:levels])))
        last = torch.bmm(hidden, self.level_out[:levels])
        seen += [below, x, hidden, last]
        logits = torch.baddbmm(self.head_bias[:levels, None], last, self.head[:levels].mT)
        return logits.view(levels, batch, frames, -1).transpose(0, 1)


def _matrix(*shape: int, gain: float = 1.0) -> nn.Parameter:
    """Random matrices [..., in, out] that keep the variance, times `gain` squared."""
    return nn.Parameter(torch.randn(*shape) * (gain / math.sqrt(shape[-2])))


def _narrow(hidden: int, dim: int) -> nn.Linear:
    """A layer that begins with small outputs."""
    layer = nn.Linear(hidden, dim)
    nn.init.normal_(layer.weight, std=0.3 / math.sqrt(3 * hidden))
    nn.init.zeros_(layer.bias)
    return layer
