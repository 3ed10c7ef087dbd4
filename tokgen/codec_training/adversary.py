"""The discriminators' side of a training step, the same for training and for tuning a codec."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tokgen.codec_training.adversarial_losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
)


class Adversary:
    """Discriminators with their optimiser, under Accelerate.

    Args:
        accelerator: that prepared the two others.
        discriminator: waveform [B, 1, N] -> feature maps per discriminator.
        optimizer: of its parameters.
        clip: of its gradient's norm.
    """

    def __init__(
        self, accelerator: Any, discriminator: nn.Module, optimizer: Any, clip: float
    ) -> None:
        self.accelerator, self.discriminator = accelerator, discriminator
        self.optimizer, self.clip = optimizer, clip

    def learn(self, real: Tensor, fake: Tensor) -> Tensor:
        """One step of telling `real` from `fake`, [B, 1, N] each; the loss, detached."""
        with self.accelerator.autocast():
            loss = discriminator_loss(self.discriminator(real), self.discriminator(fake.detach()))
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.discriminator.parameters(), self.clip)
        self.optimizer.step()
        return loss.detach()

    def judge(self, real: Tensor, fake: Tensor) -> dict[str, Tensor]:
        """What the codec has to answer for: its "adversarial" and its "feature" loss."""
        with self.accelerator.autocast():
            with torch.no_grad():
                real_features = self.discriminator(real)
            fake_features = self.discriminator(fake)
            return {
                "adversarial": adversarial_loss(fake_features),
                "feature": feature_loss(real_features, fake_features),
            }


def part_of(n_samples: int, length: int, generator: torch.Generator) -> slice:
    """`length` of `n_samples` samples at a random place: what the discriminators see of a crop."""
    start = int(torch.randint(0, n_samples - length + 1, (), generator=generator))
    return slice(start, start + length)
