"""Adversarial losses of DAC (Kumar et al. 2023).

Their arguments are lists of feature maps for each discriminator, its output last. `real` is of
original audio and `fake` of decoded audio. The losses are summed over discriminators, in float32.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["adversarial_loss", "discriminator_loss", "feature_loss"]


def discriminator_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """Least-squares loss of the discriminators: 1 for real audio, 0 for fake audio."""
    outputs = [(r[-1].float(), f[-1].float()) for r, f in zip(real, fake, strict=True)]
    return torch.stack([(1 - r).square().mean() + f.square().mean() for r, f in outputs]).sum()


def adversarial_loss(fake: list[list[Tensor]]) -> Tensor:
    """Least-squares loss of the codec: 1 for fake audio."""
    return torch.stack([(1 - f[-1].float()).square().mean() for f in fake]).sum()


def feature_loss(real: list[list[Tensor]], fake: list[list[Tensor]]) -> Tensor:
    """L1 distance between feature maps, summed over layers."""
    layers = [
        (r.float(), f.float())
        for rs, fs in zip(real, fake, strict=True)
        for r, f in zip(rs[:-1], fs[:-1], strict=True)
    ]
    return torch.stack([F.l1_loss(f, r.detach()) for r, f in layers]).sum()
