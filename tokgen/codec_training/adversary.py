"""The discriminators' part of a training step."""

from __future__ import annotations

from typing import Any

import torch
from accelerate.utils import broadcast
from torch import Tensor, nn

from tokgen.codec_training.adversarial_losses import ADVERSARIAL, FEATURE

__all__ = ["Adversary"]


class Adversary:
    """Discriminators with their optimiser.

    Args:
        accelerator: the Accelerator that prepared the discriminators and the optimiser.
        discriminator: waveform [B, C, N], bandwidth -> feature maps per discriminator.
        optimizer: optimiser of the discriminators.
        clip: limit of their gradient's norm.
        n_samples: length of the part of each crop that they judge.
        share: share of the steps in which they train.
        loss: pair of losses in `ADVERSARIAL`.
        features: loss in `FEATURE`.
    """

    def __init__(
        self,
        accelerator: Any,
        discriminator: nn.Module,
        optimizer: Any,
        clip: float,
        n_samples: int,
        *,
        share: float = 1.0,
        loss: str = "least_squares",
        features: str = "l1",
    ) -> None:
        self.accelerator, self.discriminator = accelerator, discriminator
        self.optimizer, self.clip, self.n_samples = optimizer, clip, n_samples
        self.share, self._feature_loss = share, FEATURE[features]
        self._discriminator_loss, self._adversarial_loss = ADVERSARIAL[loss]

    def step(
        self,
        real: Tensor,
        fake: Tensor,
        generator: torch.Generator,
        *,
        judge: bool = True,
        bandwidth: int = -1,
    ) -> dict[str, Tensor]:
        """Train the discriminators for one step, then compute the codec's losses.

        Both use the same random part of the waveforms. If the codec's losses are computed, the
        discriminators train with probability `share` only.

        Args:
            real, fake: original and decoded waveform [B, C, N].
            generator: CPU generator that draws the start of the part.
            judge: compute the codec's losses too.
            bandwidth: index of the bandwidth that `fake` has; -1 is the highest.
        Returns:
            "discriminator" (detached) if they trained and, if `judge`, the codec's "adversarial"
            and "feature".
        """
        spare = real.shape[-1] - self.n_samples
        start = int(torch.randint(0, spare + 1, (), generator=generator))
        part = slice(start, start + self.n_samples)
        real, fake = real[..., part], fake[..., part]
        losses = {}
        if not judge or self._trains(generator):
            losses["discriminator"] = self._train(real, fake.detach(), bandwidth)
        if judge:
            with self.accelerator.autocast():
                with torch.no_grad():
                    real_features = self.discriminator(real, bandwidth)
                fake_features = self.discriminator(fake, bandwidth)
            losses["adversarial"] = self._adversarial_loss(fake_features)
            losses["feature"] = self._feature_loss(real_features, fake_features)
        return losses

    def _train(self, real: Tensor, fake: Tensor, bandwidth: int) -> Tensor:
        """Take one step of the discriminators and return their loss."""
        with self.accelerator.autocast():
            outputs = self.discriminator(real, bandwidth), self.discriminator(fake, bandwidth)
        loss = self._discriminator_loss(*outputs)
        self.optimizer.zero_grad()
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.discriminator.parameters(), self.clip)
        self.optimizer.step()
        return loss.detach()

    def _trains(self, generator: torch.Generator) -> bool:
        """Draw whether the discriminators train, alike on all processes."""
        if self.share == 1:
            return True
        drawn = torch.rand((), generator=generator).to(self.accelerator.device)
        return float(broadcast(drawn)) < self.share
