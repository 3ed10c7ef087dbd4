"""DAC's layers as a CPU likes them: the same numbers, bit for bit, for less memory traffic.

transformers' snake activation walks five times over an activation that does not fit the caches;
here a few channels at a time go through all five steps. A pointwise convolution takes oneDNN with
one thread too, where torch would choose another, slower kernel that also rounds otherwise: so one
thread and many give the same codes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

BLOCK_VALUES = 1 << 16  # float32 that a core's own cache holds twice


class Snake(nn.Module):
    """x + sin(alpha x)^2 / alpha, with transformers' parameter [1, C, 1] and its rounding."""

    def __init__(self, alpha: nn.Parameter) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, T] -> the same shape."""
        inverse = (self.alpha + 1e-9).reciprocal()
        if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
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
    """A convolution of one sample's width that takes oneDNN with any number of threads."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled() or x.device.type != "cpu" or x.dtype != torch.float32:
            return super().forward(x)
        kernel = self.weight[:, :, None]
        flat = torch.mkldnn_convolution(x[:, :, None], kernel, self.bias, (0, 0), (1, 1), (1, 1), 1)
        return flat[:, :, 0]


def adapt(network: nn.Module) -> None:
    """Give a network of transformers' DAC these layers; weights and their names stay."""
    from transformers.models.dac.modeling_dac import Snake1d

    for name, child in network.named_children():
        if isinstance(child, Snake1d):
            setattr(network, name, Snake(child.alpha))
        elif type(child) is nn.Conv1d and child.kernel_size == (1,) and child.stride == (1,):
            child.__class__ = PointwiseConv1d
        else:
            adapt(child)
