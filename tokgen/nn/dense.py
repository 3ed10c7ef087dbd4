"""Fast matrix products and argmax on CPUs.

torch multiplies float32 matrices with MKL, which uses only AVX2 on AMD: at most half the speed of
AVX-512. oneDNN uses the widest vectors of every CPU. Its result for a row depends neither on the
number of rows nor on the number of threads.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["ROWS", "Dense", "argmax", "linear", "only_inputs", "use_onednn", "without_onednn"]

# Rows are padded to a multiple of this: oneDNN compiles one kernel per number of rows, and the
# kernel for a single row rounds differently.
ROWS = 16


class _Local(threading.local):
    only_inputs = False


_local = _Local()
_onednn = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`F.linear`, computed by oneDNN for float32 on a CPU, with first-order gradients."""
    if (
        not _onednn
        or x.device.type != "cpu"
        or x.dtype != torch.float32
        or weight.dtype != torch.float32
        or x.numel() == 0
        or torch.is_autocast_enabled("cpu")
        or torch.compiler.is_compiling()
    ):
        return F.linear(x, weight, bias)
    if torch.is_grad_enabled():
        if _local.only_inputs:
            weight, bias = weight.detach(), None if bias is None else bias.detach()
        return _Linear.apply(x, weight, bias)
    return _product(x, weight, bias)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Multiply rows [..., n] by a weight [m, n] to get [..., m]."""
    rows = x.reshape(-1, x.shape[-1])
    if spare := -len(rows) % ROWS:
        rows = F.pad(rows, (0, 0, 0, spare))
    out = torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "none", [], None)
    return out[: len(out) - spare].view(*x.shape[:-1], len(weight))


class _Linear(torch.autograd.Function):
    """`linear` with first-order gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        rows = grad.reshape(-1, grad.shape[-1])
        of_x = _product(grad, weight.T.contiguous()) if wanted[0] else None
        of_weight = None
        if wanted[1]:
            of_weight = _product(rows.T.contiguous(), x.reshape(-1, x.shape[-1]).T.contiguous())
        return of_x, of_weight, rows.sum(0) if wanted[2] else None


@contextmanager
def only_inputs() -> Iterator[None]:
    """Compute no gradients of weights in `linear` inside the `with` block, in this thread.

    `torch.autograd.grad` with respect to an input does not tell a function in Python that it needs
    no others.
    """
    before, _local.only_inputs = _local.only_inputs, True
    try:
        yield
    finally:
        _local.only_inputs = before


@contextmanager
def without_onednn() -> Iterator[None]:
    """Make `linear` call `F.linear` inside the `with` block, to count FLOPs or to compare."""
    global _onednn
    before, _onednn = _onednn, False
    try:
        yield
    finally:
        _onednn = before


def argmax(scores: Tensor) -> Tensor:
    """`scores.argmax(-1)`; uses numpy on a CPU, which is ten times as fast. Ties give the first."""
    if scores.device.type != "cpu" or torch.compiler.is_compiling():
        return scores.argmax(-1)
    values = scores.detach()
    values = values.float() if values.dtype in (torch.bfloat16, torch.float16) else values
    return torch.from_numpy(np.asarray(values.numpy().argmax(-1)))


class Dense(nn.Linear):
    """`nn.Linear` that computes with `linear`."""

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias)


def use_onednn(network: nn.Module) -> None:
    """Turn every `nn.Linear` of a network into a `Dense`, with the same weights and names."""
    for module in network.modules():
        if type(module) is nn.Linear:
            module.__class__ = Dense
