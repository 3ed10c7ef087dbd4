"""Adversarial losses of DAC (Kumar et al. 2023) and EnCodec (Défossez et al. 2022).

Their arguments are lists of feature maps for each discriminator, its output last. `real` is of
original audio and `fake` of decoded audio. DAC's losses are sums over discriminators and layers,
EnCodec's are means. All are in float32.

`ADVERSARIAL` names the pairs of losses for discriminators and codec, `FEATURE` the feature losses.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = [
    "ADVERSARIAL",
    "FEATURE",
    "adversarial_loss",
    "discriminator_hinge_loss",
    "discriminator_loss",
    "feature_loss",
    "hinge2_loss",
    "hinge_loss",
    "relative_feature_loss",
]

_Maps = list[list[Tensor]]


def discriminator_loss(real: _Maps, fake: _Maps) -> Tensor:
    """Least-squares loss of the discriminators: 1 for real audio, 0 for fake audio."""
    outputs = [(r[-1].float(), f[-1].float()) for r, f in zip(real, fake, strict=True)]
    return torch.stack([(1 - r).square().mean() + f.square().mean() for r, f in outputs]).sum()


def adversarial_loss(fake: _Maps) -> Tensor:
    """Least-squares loss of the codec: 1 for fake audio."""
    return torch.stack([(1 - f[-1].float()).square().mean() for f in fake]).sum()


def feature_loss(real: _Maps, fake: _Maps) -> Tensor:
    """L1 distance between feature maps, summed over layers."""
    return torch.stack([F.l1_loss(f, r) for r, f in _layers(real, fake)]).sum()


def discriminator_hinge_loss(real: _Maps, fake: _Maps) -> Tensor:
    """Hinge loss of the discriminators: at least 1 for real audio, at most -1 for fake audio."""
    outputs = [(r[-1].float(), f[-1].float()) for r, f in zip(real, fake, strict=True)]
    return torch.stack([F.relu(1 - r).mean() + F.relu(1 + f).mean() for r, f in outputs]).mean()


def hinge_loss(fake: _Maps) -> Tensor:
    """Loss of the codec in AudioCraft: minus the output, without a limit."""
    return torch.stack([-f[-1].float().mean() for f in fake]).mean()


def hinge2_loss(fake: _Maps) -> Tensor:
    """Loss of the codec in EnCodec's paper: the output of fake audio should be at least 1."""
    return torch.stack([F.relu(1 - f[-1].float()).mean() for f in fake]).mean()


def relative_feature_loss(real: _Maps, fake: _Maps) -> Tensor:
    """L1 distance between feature maps over the mean magnitude of the real one."""
    ratios = [F.l1_loss(f, r) / r.abs().mean().clamp(min=1e-8) for r, f in _layers(real, fake)]
    return torch.stack(ratios).mean()


def _layers(real: _Maps, fake: _Maps) -> list[tuple[Tensor, Tensor]]:
    """Pairs of feature maps without the outputs. The real ones get no gradient."""
    return [
        (r.float().detach(), f.float())
        for rs, fs in zip(real, fake, strict=True)
        for r, f in zip(rs[:-1], fs[:-1], strict=True)
    ]


ADVERSARIAL: dict[str, tuple[Callable[[_Maps, _Maps], Tensor], Callable[[_Maps], Tensor]]] = {
    "least_squares": (discriminator_loss, adversarial_loss),
    "hinge": (discriminator_hinge_loss, hinge_loss),
    "hinge2": (discriminator_hinge_loss, hinge2_loss),
}
FEATURE: dict[str, Callable[[_Maps, _Maps], Tensor]] = {
    "l1": feature_loss,
    "relative": relative_feature_loss,
}
