"""The convolution that all discriminators use."""

from __future__ import annotations

from torch import nn
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["SLOPE", "conv2d"]

SLOPE = 0.1  # of leaky ReLU


def conv2d(n_in: int, n_out: int, kernel: tuple[int, int], stride: tuple[int, int]) -> nn.Conv2d:
    """A convolution with weight norm, padded by half its kernel."""
    padding = (kernel[0] // 2, kernel[1] // 2)
    return weight_norm(nn.Conv2d(n_in, n_out, kernel, stride, padding))
