"""Linear layers on a CPU through oneDNN, whose kernels use the widest vectors of any maker's CPU.

torch multiplies float32 matrices with MKL, which on AMD keeps to AVX2: half the speed or less where
there is AVX-512. Rows come out the same whatever the number of rows, from two on, and of threads.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Dense(nn.Linear):
    """`nn.Linear` that takes oneDNN for float32 on a CPU where no gradient is asked for."""

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if (
            not _ONEDNN
            or x.device.type != "cpu"
            or x.dtype != torch.float32
            or weight.dtype != torch.float32
            or torch.is_grad_enabled()
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
        ):
            return F.linear(x, weight, bias)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], None)


def use_onednn(network: nn.Module) -> nn.Module:
    """Make every `nn.Linear` of a network a `Dense`; weights and their names stay."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Dense
    return network
