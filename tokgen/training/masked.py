"""The training of a masked transformer, which predicts the hidden part of one level."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any, ClassVar

import torch
from accelerate import DistributedType
from torch import Tensor

from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.masking import (
    TrainingMask,
    level_accuracy,
    masked_cross_entropy,
    training_mask,
)
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.data import TrainingBatch, TrainingData
from tokgen.training.excerpts import TokenBatch
from tokgen.training.flops import Counts, peak_flops, training_flops
from tokgen.training.loop import Training
from tokgen.training.settings import TrainingSettings

__all__ = ["MaskedTraining"]


class MaskedTraining(Training[MaskedTransformer, TrainingSettings, TrainingBatch]):
    """One training run of a masked transformer; see `Training`.

    Attributes:
        data: the batches of this process.
        counts: amount of computation on this device so far; `flops` uses it.
    """

    adamw: ClassVar = {"fused": True}

    def __init__(
        self,
        accelerator: Any,
        model: MaskedTransformer,
        tokens: TokenDataset,
        settings: TrainingSettings,
        folder: Path,
    ) -> None:
        super().__init__(accelerator, model, tokens, settings, folder)
        self.counts = Counts(*self._saved.get("counts", ()))
        self.data = TrainingData(
            self.split,
            settings,
            (self.crop_frames, round(settings.crop_seconds_min * self.frame_rate)),
            model.mask_id,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        if self.data.excerpts.variable_depth != model.variable_depth:
            has = "has" if model.variable_depth else "has not"
            raise ValueError(
                f"the model {has} a depth of frames, unlike these tokens: make it with "
                "MaskedTransformer.for_tokens"
            )

    def wrapped(self) -> Any:
        """Return the model, compiled if the settings say so."""
        if not self.settings.compile:
            return self.model
        if self.accelerator.distributed_type == DistributedType.FSDP:
            raise ValueError("compile = True is not tested under FSDP: use one of the two")
        return torch.compile(self.model)

    def passes(self, first: int) -> Iterator[TrainingBatch]:
        return iter(self.data.loader(first, pin_memory=self.accelerator.device.type == "cuda"))

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Run the network on a batch and count the pass for the next line of the history.

        Returns:
            the mean cross-entropy (nats) of the hidden positions.
        """
        logits = self._logits(batch, batch.mask, batch.hidden)
        loss = masked_cross_entropy(logits, batch.codes, batch.mask)
        hits, seen = level_accuracy(logits, batch.codes, batch.mask, self.model.n_levels)
        self.counts += batch.counts
        found = loss.detach()[None]
        self._sums += torch.cat([found, torch.ones_like(found), hits, seen])
        return loss

    def _logits(self, batch: TokenBatch, mask: TrainingMask, hidden: Tensor | None) -> Tensor:
        """Logits at `mask.level`: at the hidden positions on a CPU, elsewhere at all positions."""
        # Elsewhere the host would wait for the number of hidden positions, which costs more time.
        few = self.accelerator.device.type == "cpu" and not self.settings.compile
        with self.accelerator.autocast():
            return self.network(
                mask.tokens,
                batch.conditioning,
                drop_conditioning=hidden,
                lengths=batch.lengths if batch.padded else None,
                documents=batch.documents,
                level=mask.level,
                positions=mask.target if few else None,
            )

    def empty_sums(self) -> Tensor:
        """Zeros for loss, passes, and right and seen tokens per level."""
        return torch.zeros(2 + 2 * self.model.n_levels)

    def describe(self, sums: Tensor) -> dict[str, float]:
        loss, passes, *tokens = sums.tolist()
        right, seen = tokens[: self.model.n_levels], tokens[self.model.n_levels :]
        names = [f"level{k}" for k in range(self.model.n_codebooks)]
        names = ["depth", *names] if self.model.variable_depth else names
        shares = {f"accuracy/{names[k]}": right[k] / n for k, n in enumerate(seen) if n}
        return {"loss": loss / passes, **shares}

    def validate(self, batches: Callable[[int], Iterator[TokenBatch]]) -> dict[str, float]:
        """Loss and accuracy with one fixed mask per utterance; the depth has its own accuracy."""
        s, variable, n_levels = self.settings, self.model.variable_depth, self.model.n_levels
        losses, hits, seen = [], *torch.zeros(2, n_levels, dtype=torch.float64)
        size = s.batch_size * self.accelerator.num_processes  # one process draws the same masks
        for i, batch in enumerate(batches(size)):
            generator = torch.Generator().manual_seed(s.seed + i)
            mask = training_mask(
                batch.codes,
                batch.lengths,
                self.model.mask_id,
                generator,
                variable_depth=variable,
            )
            logits = self._logits(batch, mask, None)
            losses.append(masked_cross_entropy(logits, batch.codes, mask).item())
            right, total = level_accuracy(logits, batch.codes, mask, n_levels)
            hits, seen = hits + right.cpu(), seen + total.cpu()
        shares = {"depth_accuracy": slice(0, variable), "accuracy": slice(variable, None)}
        found = {"validation/loss": sum(losses) / len(losses)}
        for name, part in shares.items():
            if seen[part].sum():
                found[f"validation/{name}"] = (hits[part].sum() / seen[part].sum()).item()
        return found

    def state(self) -> dict[str, Any]:
        return {**super().state(), "counts": list(astuple(self.counts))}

    @property
    def flops(self) -> int:
        """FLOPs of all steps so far on this device, by `tokgen.training.flops`."""
        return training_flops(self.model, self.counts)

    def speed(self) -> dict[str, float | None]:
        """Speed over all steps so far, with None for what is unknown.

        Returns:
            the values of `Training`, and model_flops_per_second of one device, and mfu, their share
            of the vendor's peak.
        """
        device = self.accelerator.device
        rate = self.flops / self.seconds if self.seconds else None
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        peak = peak_flops(name, self.accelerator.mixed_precision)
        mfu = rate / peak if rate is not None and peak else None
        return {**super().speed(), "model_flops_per_second": rate, "mfu": mfu}
