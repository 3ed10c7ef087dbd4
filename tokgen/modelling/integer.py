"""Arithmetic of entropy models in whole numbers, with the same results on every machine.

A number x is stored as an integer X = x * 2**bits. A layer multiplies integers, adds them and
shifts the sum to the right; docs/entropy_model.md states each step. The functions take NumPy arrays
or torch tensors, and give the same integers for both.

Products are summed in float64, where libraries are fast. The result is exact in any order: every
partial sum is a whole number below 2**53.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

__all__ = [
    "LARGEST",
    "SCORE_BITS",
    "SHIFTS",
    "TABLE_BITS",
    "TOTAL_BITS",
    "Layer",
    "clip",
    "counts_of",
    "power_table",
    "quantize_layer",
]

_Array = Any  # a NumPy array or torch tensor; they share the operators used here

LARGEST = (1 << 15) - 1  # of an activation
SCORE_BITS = 8  # fraction of a score, which is a logarithm to base 2
TABLE_BITS = 24  # fraction of the table of powers
SHIFTS = (1, 24)  # the least and the largest of a layer
TOTAL_BITS = 22  # the counts of a code sum to at most 2**22
_WEIGHT = 127  # the largest weight
_SUM = (1 << 31) - 1  # the largest sum inside a layer


@dataclass(frozen=True)
class Layer:
    """An integer layer: y = (W x + b + 2**(s-1)) >> s, with one shift for each output.

    Attributes:
        weight: [..., out, in], whole numbers in float64.
        bias: int64 [..., out], with 2**(s-1) added.
        shift: int64 [..., out].
    """

    weight: _Array
    bias: _Array
    shift: _Array

    def __call__(self, x: _Array) -> _Array:
        """Map int64 [..., in] to int64 [..., out]."""
        return (_exact_product(self.weight, x) + self.bias) >> self.shift

    def part(self, index: Any) -> Layer:
        """The layer at an index of the leading axes."""
        return Layer(self.weight[index], self.bias[index], self.shift[index])


def _exact_product(weight: _Array, x: _Array) -> _Array:
    """Return W x for whole numbers: weight float64 [..., out, in], x int64 [..., in]."""
    if isinstance(x, torch.Tensor):
        return (x.double() @ weight.mT).long()
    return (x.astype(np.float64) @ np.swapaxes(weight, -1, -2)).astype(np.int64)


def clip(x: _Array, low: int = -LARGEST) -> _Array:
    """Limit activations to `low`..LARGEST. With low = 0 it is also the ReLU."""
    return x.clip(low, LARGEST)


def power_table() -> NDArray[np.int64]:
    """The table P[i] = round(2**TABLE_BITS * 2**(-i / 2**SCORE_BITS)), i < 2**SCORE_BITS."""
    powers = 2.0 ** (TABLE_BITS - np.arange(1 << SCORE_BITS) / (1 << SCORE_BITS))
    return np.rint(powers).astype(np.int64)


def counts_of(scores: _Array, table: _Array) -> _Array:
    """Counts of codes from their scores.

    Args:
        scores: int64 [..., V], logarithms to base 2 with SCORE_BITS of fraction.
        table: `power_table`, of the same kind of array.
    Returns:
        int64 [..., V], each at least 1. Each row sums to at most 2**TOTAL_BITS.
    """
    if isinstance(scores, torch.Tensor):
        below = scores.amax(-1, keepdim=True) - scores
    else:
        below = scores.max(-1, keepdims=True) - scores
    whole = (below >> SCORE_BITS).clip(0, 62)
    powers = table[below & ((1 << SCORE_BITS) - 1)] >> whole
    total = powers.sum(-1)[..., None]
    return powers * ((1 << TOTAL_BITS) - scores.shape[-1]) // total + 1


def quantize_layer(
    weight: NDArray[np.float64], bias: NDArray[np.float64] | None, bits_in: int, bits_out: int
) -> dict[str, NDArray[Any]]:
    """Round a layer to integers, with the finest power of two for each output.

    Args:
        weight: [..., out, in].
        bias: [..., out]; None is 0.
        bits_in, bits_out: bits of fraction of the inputs and outputs.
    Returns:
        weight int8, bias int32 (without the half that `Layer` adds) and shift uint8.
    Raises:
        ValueError: a weight does not fit in 8 bits, or a bias or a sum in 32.
    """
    weight = weight * 2.0 ** (bits_out - bits_in)
    largest = np.maximum(np.abs(weight).max(-1), 1e-12)
    limit = _WEIGHT / 2.0 ** SHIFTS[0]
    if not largest.max() <= limit:
        raise ValueError(
            f"a layer's largest weight is {largest.max():.4g}, but must be at most {limit:g}: "
            "train with more weight decay"
        )
    shift = np.floor(np.log2(_WEIGHT / largest)).astype(np.int64).clip(*SHIFTS)
    whole = np.rint(weight * 2.0 ** shift[..., None]).clip(-_WEIGHT, _WEIGHT)
    offset = np.zeros(shift.shape) if bias is None else np.rint(bias * 2.0 ** (bits_out + shift))
    most = np.abs(whole).sum(-1) * (LARGEST + 1) + np.abs(offset) + 2.0 ** (shift - 1)
    if most.max() > _SUM:
        raise ValueError(
            f"a layer's sums reach {most.max():.0f}, but must stay within {_SUM}: use fewer "
            "inputs, or train with more weight decay"
        )
    return {
        "weight": whole.astype(np.int8),
        "bias": offset.astype(np.int32),
        "shift": shift.astype(np.uint8),
    }
