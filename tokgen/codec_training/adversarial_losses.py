"""Losses of codec training, with the constants of DAC (Kumar et al. 2023)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Least-squares loss: real outputs to 1, fake ones to 0, summed over discriminators.

    Args:
        real, fake: per discriminator its feature maps, the last being its output.
    """
    return torch.stack(
        [
            (1 - r[-1]).square().mean() + f[-1].square().mean()
            for r, f in zip(real, fake, strict=True)
        ]
    ).sum()


def adversarial_loss(fake: list[list[Tensor]]) -> Tensor:
    """Least-squares generator loss: fake outputs to 1, summed over discriminators."""
    return torch.stack([(1 - f[-1]).square().mean() for f in fake]).sum()


def feature_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """L1 between feature maps, summed over layers and discriminators."""
    return torch.stack(
        [
            F.l1_loss(f, r.detach())
            for rs, fs in zip(real, fake, strict=True)
            for r, f in zip(rs[:-1], fs[:-1], strict=True)
        ]
    ).sum()
