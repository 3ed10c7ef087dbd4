"""Convolutions over sequences whose items have different lengths."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.nn.dense import linear

__all__ = ["ConvolutionStack"]


class ConvolutionStack(nn.Module):
    """Residual layers of a gated convolution, each after a layer norm.

    Positions past an item's end are zero for every layer, so a result does not depend on padding.

    Args:
        dim: width.
        depth: layers.
        kernel: positions that a layer sees, an odd number.
        dropout: after each convolution.
    """

    def __init__(self, dim: int, depth: int, kernel: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(dim) for _ in range(depth))
        self.layers = nn.ModuleList(nn.Linear(kernel * dim, 2 * dim) for _ in range(depth))
        self.last = nn.LayerNorm(dim)
        self.kernel, self.dropout = kernel, nn.Dropout(dropout)

    def forward(self, x: Tensor, inside: Tensor) -> Tensor:
        """Map x [B, T, dim]; `inside` bool [B, T] is false past the end of an item."""
        keep, side = inside[..., None].to(x.dtype), self.kernel // 2
        for norm, layer in zip(self.norms, self.layers, strict=True):
            assert isinstance(layer, nn.Linear)
            padded = F.pad(norm(x) * keep, (0, 0, side, side))
            window = padded.unfold(1, self.kernel, 1).flatten(2)  # [B, T, dim * kernel]
            x = x + self.dropout(F.glu(linear(window, layer.weight, layer.bias), -1))
        return self.last(x) * keep
