"""The training of an autoregressive transformer: predict the codes of each step."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.modelling.delay import DelayTransformer
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.data import TrainingBatch, TrainingData
from tokgen.training.excerpts import TokenBatch
from tokgen.training.loop import Training
from tokgen.training.settings import TrainingSettings

__all__ = ["DelayTraining"]


class DelayTraining(Training[DelayTransformer, TrainingSettings, TrainingBatch]):
    """One training run of an autoregressive transformer; see `Training`.

    Its excerpts are those of `MaskedTraining`, in the same order.

    Raises:
        ValueError: the settings ask for packing or compilation.
    """

    adamw: ClassVar = {"fused": True}

    def __init__(
        self,
        accelerator: Any,
        model: DelayTransformer,
        tokens: TokenDataset,
        settings: TrainingSettings,
        folder: Path,
    ) -> None:
        for name in ("packing", "compile"):
            if getattr(settings, name):
                raise ValueError(
                    f"{name} = True: autoregressive models are not trained with it; set it to False"
                )
        super().__init__(accelerator, model, tokens, settings, folder)
        self.data = TrainingData(
            self.split,
            settings,
            (self.crop_frames, round(settings.crop_seconds_min * self.frame_rate)),
            model.mask_id,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )

    def passes(self, first: int) -> Iterator[TrainingBatch]:
        return iter(self.data.loader(first, pin_memory=self.accelerator.device.type == "cuda"))

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Run the network on a batch; returns the mean cross-entropy (nats) of its codes."""
        nats, right, inside = self._score(batch, batch.hidden)
        loss = nats.sum() / (inside.sum() * nats.shape[1])
        self._sums[0] += nats.detach().sum((0, 2))
        self._sums[1] += right.sum((0, 2))
        self._sums[2] += inside.sum()
        return loss

    def _score(self, batch: TokenBatch, hidden: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Cross-entropies, right guesses [B, K, T] each, and frames inside the items, [B, T]."""
        with self.accelerator.autocast():
            logits = self.network(
                batch.codes, batch.conditioning, drop_conditioning=hidden, lengths=batch.lengths
            )
        inside = torch.arange(batch.codes.shape[-1], device=batch.codes.device)
        inside = inside < batch.lengths[:, None]
        nats = F.cross_entropy(
            logits.float().flatten(0, 2), batch.codes.flatten(), reduction="none"
        )
        right = (logits.argmax(-1) == batch.codes) & inside[:, None]
        return nats.view(batch.codes.shape) * inside[:, None], right, inside

    def empty_sums(self) -> Tensor:
        """Zeros for nats, right codes and frames of each level."""
        return torch.zeros(3, self.model.n_codebooks)

    def describe(self, sums: Tensor) -> dict[str, float]:
        nats, right, frames = sums.cpu()
        shares = {
            f"accuracy/level{k}": (r / n).item()
            for k, (r, n) in enumerate(zip(right, frames, strict=True))
        }
        return {"loss": (nats.sum() / frames.sum()).item(), **shares}

    def validate(self, batches: Callable[[int], Iterator[TokenBatch]]) -> dict[str, float]:
        """Loss and accuracy of all codes, each after the true codes of earlier steps."""
        total = self.empty_sums().double()
        for batch in batches(self.settings.batch_size):
            nats, right, inside = self._score(batch, None)
            found = torch.stack(
                [nats.sum((0, 2)), right.sum((0, 2)), inside.sum().expand(len(total[0]))]
            )
            total += found.cpu().double()
        nats, right, frames = total
        return {
            "validation/loss": (nats.sum() / frames.sum()).item(),
            "validation/accuracy": (right.sum() / frames.sum()).item(),
        }
