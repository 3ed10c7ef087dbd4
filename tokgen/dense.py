"""Matrix products and lookups as a CPU does them fastest.

torch multiplies float32 matrices with MKL, which on AMD keeps to AVX2: half the speed or less where
there is AVX-512. oneDNN uses the widest vectors of any maker's CPU, and its rows come out the same
whatever the number of rows, and of threads.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

ROWS = 16  # products are filled up to a multiple: oneDNN compiles a kernel for each number of rows,
# and a lone row would take one that rounds otherwise
_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, by oneDNN for float32 on a CPU where no gradient is asked for.

    Args:
        x: [..., n].
        weight: [m, n].
        bias: [m] or None.
    Returns:
        [..., m].
    """
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
    rows = x.reshape(-1, x.shape[-1])
    if spare := -len(rows) % ROWS:
        rows = F.pad(rows, (0, 0, 0, spare))
    out = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], None)
    return out[: len(out) - spare].view(*x.shape[:-1], -1)


def argmax(scores: Tensor) -> Tensor:
    """`scores.argmax(-1)`, the first of several; on a CPU by numpy, ten times as fast."""
    if scores.device.type != "cpu" or torch.compiler.is_compiling():
        return scores.argmax(-1)
    return torch.from_numpy(np.asarray(scores.detach().numpy().argmax(-1)))


class Dense(nn.Linear):
    """`nn.Linear` by `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def use_onednn(network: nn.Module) -> nn.Module:
    """Make every `nn.Linear` of a network a `Dense`; weights and their names stay."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Dense
    return network
