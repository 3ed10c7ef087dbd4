"""Depth of frames as a level of its own, for models of codes of variable bitrate.

Tokens of a codec with K levels then have K + 1 levels. Level 0 is the depth of each frame, as
entries 0..K-1 for depths 1..K. Level k holds the codes of the codec's level k - 1. They are live in
frames of at least k levels. Other positions are neither predicted nor shown: the model sees PAD.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.depth import Rate
from tokgen.nn.dense import linear

__all__ = [
    "DepthLevel",
    "join_depth",
    "limit_sizes",
    "live_levels",
    "rate_setting",
    "split_depth",
]


def join_depth(codes: Tensor, depth: Tensor) -> Tensor:
    """Put the depth before the codes.

    Args:
        codes: int64 [..., K, T].
        depth: integers [..., T] in 1..K; 0 past an item's end.
    Returns:
        tokens int64 [..., K + 1, T], 0 past the depth.
    """
    n_codebooks = codes.shape[-2]
    first = depth.long().clamp(1, n_codebooks)[..., None, :] - 1
    tokens = torch.cat([first, codes], -2)
    return tokens.masked_fill(~live_levels(tokens), 0)


def split_depth(tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Split tokens [..., K + 1, T] into codes [..., K, T] and depth int64 [..., T] in 1..K."""
    return tokens[..., 1:, :], tokens[..., 0, :] + 1


def live_levels(tokens: Tensor) -> Tensor:
    """Return a bool mask of the live positions of tokens [..., K + 1, T].

    Frames whose depth is MASK count as of full depth.
    """
    index = torch.arange(tokens.shape[-2], device=tokens.device)[:, None]
    return index <= tokens[..., :1, :] + 1


def limit_sizes(bias: Tensor, sizes: Sequence[int]) -> Tensor:
    """Return the biases [K, V] of levels of some sizes, -inf past them; no sizes change nothing."""
    if not sizes:
        return bias
    ends = torch.tensor(sizes, device=bias.device)[:, None]
    return bias.masked_fill(torch.arange(bias.shape[1], device=bias.device) >= ends, -torch.inf)


def rate_setting(rate: Rate | None) -> dict[str, float] | None:
    """Return the level or the bitrate of a rate, by its name; None for no rate."""
    if rate is None:
        return None
    given = {"level": rate.level, "bitrate": rate.bitrate}
    return {name: value for name, value in given.items() if value is not None}


class DepthLevel(nn.Module):
    """The parameters of the depth level: embeddings of depths, of MASK and of PAD, and a head.

    Args:
        n_codebooks: K.
        dim: width of the transformer.
    """

    def __init__(self, n_codebooks: int, dim: int) -> None:
        super().__init__()
        self.embed_depth = nn.Parameter(torch.randn(n_codebooks, dim) * 0.02)
        self.embed_mask = nn.Parameter(torch.randn(dim) * 0.02)
        self.embed_pad = nn.Parameter(torch.randn(n_codebooks, dim) * 0.02)
        self.head_weight = nn.Parameter(torch.randn(n_codebooks, dim) * 0.02)
        self.head_bias = nn.Parameter(torch.zeros(n_codebooks))

    def embed(self, tokens: Tensor, mask_id: int) -> Tensor:
        """Embed the depth and PAD of tokens [B, K + 1, T] as [B, T, dim]."""
        depth, dead = tokens[:, 0], ~live_levels(tokens)[:, 1:]
        hidden = depth == mask_id
        table = torch.cat([self.embed_depth, self.embed_mask[None]])
        found = F.embedding(depth.masked_fill(hidden, len(self.embed_depth)), table)
        return found + dead.mT.to(self.embed_pad.dtype) @ self.embed_pad

    def logits(self, x: Tensor) -> Tensor:
        """Return the logits [..., K] of the depth."""
        return linear(x, self.head_weight, self.head_bias)

    def beside(self, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
        """Put this head before the heads of codes, weight [K, V, dim] and bias [K, V].

        The entries of the depth level past K have the logit -inf.
        """
        spare = weight.shape[1] - len(self.head_weight)
        first = F.pad(self.head_weight, (0, 0, 0, spare))
        none = F.pad(self.head_bias, (0, spare), value=-torch.inf)
        return torch.cat([first[None], weight]), torch.cat([none[None], bias])
