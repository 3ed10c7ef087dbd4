"""Faster layers for DAC on a CPU, with results equal to the bit.

transformers' snake activation makes five passes over a tensor that does not fit into the caches;
this one runs all five steps on a few channels at a time. Pointwise convolutions always use oneDNN.
With one thread, torch would choose another kernel, which is slower and rounds differently; this
way, the number of threads does not change the codes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["BLOCK_VALUES", "PointwiseConv1d", "Snake", "adapt"]

BLOCK_VALUES = 1 << 16  # two blocks of float32 fit into a core's own cache


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, with transformers' parameter alpha [1, C, 1] and rounding."""

    def __init__(self, alpha: nn.Parameter) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] -> [B, C, T]."""
        inverse = (self.alpha + 1e-9).reciprocal()
        if _is_general(x):
            return x + inverse * torch.sin(self.alpha * x).pow(2)
        out = torch.empty_like(x)
        step = max(1, BLOCK_VALUES // x.shape[-1])
        for item, result in zip(x, out, strict=True):
            for c in range(0, x.shape[1], step):
                rows = slice(c, c + step)
                block = torch.mul(self.alpha[0, rows], item[rows], out=result[rows])
                block.sin_().square_().mul_(inverse[0, rows]).add_(item[rows])
        return out


class PointwiseConv1d(nn.Conv1d):
    """A convolution of kernel size 1 that uses oneDNN with any number of threads."""

    def forward(self, x: Tensor) -> Tensor:
        if _is_general(x):
            return super().forward(x)
        kernel = self.weight[:, :, None]
        flat = torch.mkldnn_convolution(x[:, :, None], kernel, self.bias, (0, 0), (1, 1), (1, 1), 1)
        return flat[:, :, 0]


def adapt(network: nn.Module) -> None:
    """Put these layers into a DAC of transformers; the weights and their names stay."""
    from transformers.models.dac.modeling_dac import Snake1d

    for name, child in network.named_children():
        if isinstance(child, Snake1d):
            setattr(network, name, Snake(child.alpha))
        elif type(child) is nn.Conv1d and child.kernel_size == (1,) and child.stride == (1,):
            child.__class__ = PointwiseConv1d
        else:
            adapt(child)


def _is_general(x: Tensor) -> bool:
    """Return whether x needs operations of torch: for gradients, export, other devices or types."""
    special = torch.is_grad_enabled() or torch.compiler.is_compiling()
    return special or x.device.type != "cpu" or x.dtype != torch.float32
