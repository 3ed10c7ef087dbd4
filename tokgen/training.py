"""Around the loop that trains a masked transformer: data, optimiser, checkpoints, history.

    training = Training(accelerator, model, tokens, settings, folder)
    for batch in training.batches():
        mask, hidden = training.hide(batch)
        with training.one_pass():
            logits = training.network(
                mask.tokens, batch.conditioning, drop_conditioning=hidden,
                lengths=batch.lengths, level=mask.level,
            )
            training.descend(masked_cross_entropy(logits, batch.codes, mask))
        training.note(logits, batch, mask)

The loop itself stands in the recipe. All randomness depends on (seed, step) alone, and item i of
the data on (seed, i), so a run that was killed goes on as if nothing had happened.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor
from torch.utils.data import DataLoader, Subset
from tqdm import tqdm

from tokgen.batches import CropDataset, TokenBatch, collate
from tokgen.masking import TrainingMask, training_mask
from tokgen.model import MaskedTransformer, level_accuracy, masked_cross_entropy
from tokgen.runs import (
    Checkpoints,
    Interrupt,
    append_history,
    pick_precision,
    read_history,
    step_seed,
    write_json,
)
from tokgen.token_dataset import TokenDataset

SCHEDULES = ("constant", "cosine")


@dataclass(frozen=True)
class TrainingSettings:
    """How a masked transformer is trained.

    Attributes:
        steps: optimiser steps.
        batch_size: excerpts per process and pass.
        crop_seconds: length of the excerpts.
        learning_rate: AdamW's, after `warmup` steps.
        schedule: "constant" (the paper) or "cosine" (down to 5 % at the end).
        conditioning_dropout: share of excerpts whose conditioning is hidden, for guidance.
        gradient_accumulation: passes per optimiser step.
        log_every, validate_every, checkpoint_every: steps between them.
        seed: of the excerpts and masks.
    """

    steps: int = 100_000
    batch_size: int = 32
    crop_seconds: float = 5.0
    learning_rate: float = 1e-4
    warmup: int = 0
    schedule: str = "constant"
    weight_decay: float = 0.01
    clip: float = 1.0
    conditioning_dropout: float = 0.2
    gradient_accumulation: int = 1
    compile: bool = False
    workers: int = 0
    log_every: int = 20
    validate_every: int = 500
    checkpoint_every: int = 200
    seed: int = 0

    def __post_init__(self) -> None:
        counts = ("steps", "batch_size", "gradient_accumulation")
        for name in (*counts, "log_every", "validate_every", "checkpoint_every"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("crop_seconds", "learning_rate", "clip"):
            if not 0 < getattr(self, name) < math.inf:
                raise ValueError(f"{name} = {getattr(self, name)}: must be above 0 and finite")
        for name in ("warmup", "workers", "seed"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 0")
        if not 0 <= self.conditioning_dropout <= 1:
            raise ValueError(f"conditioning_dropout = {self.conditioning_dropout}: a share, 0 to 1")
        if self.schedule not in SCHEDULES:
            raise ValueError(f"schedule {self.schedule!r}: known are {', '.join(SCHEDULES)}")


def learning_rate(settings: TrainingSettings, step: int) -> float:
    """That of a step, counted from 0."""
    rise = min(1.0, (step + 1) / settings.warmup) if settings.warmup else 1.0
    if settings.schedule == "constant":
        return settings.learning_rate * rise
    fall = 0.05 + 0.95 * (1 + math.cos(math.pi * step / settings.steps)) / 2
    return settings.learning_rate * (rise * fall)


def make_accelerator(
    settings: TrainingSettings, folder: Path, mixed_precision: str, tracker: str
) -> Accelerator:
    """An Accelerator for a training.

    Args:
        settings: its gradient accumulation.
        folder: of the run; trackers write there.
        mixed_precision: "auto", "no", "bf16" or "fp16".
        tracker: "none", "tensorboard", "wandb" ...
    Raises:
        ValueError: unknown precision or tracker.
    """
    return Accelerator(
        mixed_precision=pick_precision(mixed_precision),
        gradient_accumulation_steps=settings.gradient_accumulation,
        log_with=None if tracker == "none" else tracker,
        project_dir=folder,
        step_scheduler_with_optimizer=False,
    )


def conditions_of(accelerator: Any) -> dict[str, Any]:
    """What shapes weights beside settings and data: for `claim_run` and `save_settings`."""
    return {"processes": accelerator.num_processes, "precision": accelerator.mixed_precision}


class Training:
    """One training run; how to use it stands at the module's beginning.

    Args:
        accelerator: with the run's precision and gradient accumulation.
        model: a new one; `network` is what to call, prepared for the device.
        tokens: has a train split; the loss is followed on its validation split, if there is one.
        settings: see `TrainingSettings`.
        folder: gets checkpoints/, history.jsonl and, at the end, training.json.

    Attributes:
        step: optimiser steps done, those before a kill included.
        seconds: that they took, without validation and checkpoints.
        history: what was logged, one dict a line.
        interrupted: Ctrl-C or SIGTERM ended the loop, and a checkpoint was written.
    """

    def __init__(
        self,
        accelerator: Any,
        model: MaskedTransformer,
        tokens: TokenDataset,
        settings: TrainingSettings,
        folder: Path,
    ) -> None:
        self.accelerator, self.model, self.settings = accelerator, model, settings
        self.folder, self.interrupted = folder, False
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            fused=True,
        )
        network = torch.compile(model) if settings.compile else model
        self.network, self.optimizer = accelerator.prepare(network, optimizer)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.step, saved = self.checkpoints.resume(accelerator)
        self.seconds: float = saved.get("seconds", 0.0)
        empty = [0.0] * (2 + 2 * model.n_codebooks)  # loss, passes, right and seen tokens per level
        self._sums = torch.tensor(saved.get("since_log", empty), device=accelerator.device)
        lines = read_history(folder / "history.jsonl")
        self.history = [line for line in lines if line["step"] <= self.step]
        self._crop_frames = round(settings.crop_seconds * tokens.provenance.spec.frame_rate)
        per_step = settings.batch_size * accelerator.num_processes * settings.gradient_accumulation
        data = CropDataset(
            tokens.splits["train"],
            self._crop_frames,
            n_items=settings.steps * per_step,
            seed=settings.seed,
        )
        self._loader = accelerator.prepare(
            DataLoader(
                Subset(data, range(self.step * per_step, len(data))),
                settings.batch_size,
                collate_fn=collate,
                num_workers=settings.workers,
            )
        )
        self._validation = tokens.splits.get("validation")
        self._part, self._loss = 0, torch.zeros((), device=accelerator.device)

    def batches(self) -> Iterator[TokenBatch]:
        """What is left to train on, on the device.

        Between two batches it moves the learning rate, logs, validates and saves checkpoints.
        Ends early when interrupted.

        Raises:
            SystemExit: the loss is not finite any more.
        """
        s, accelerator = self.settings, self.accelerator
        write = None
        if accelerator.is_main_process:
            write = append_history(self.folder / "history.jsonl", self.history)
        if self.step:
            accelerator.print(f"continuing at step {self.step} of {s.steps}")
        interrupt, left = Interrupt(), iter(self._loader)
        bar = tqdm(
            total=s.steps, initial=self.step, unit="step", disable=not accelerator.is_main_process
        )
        try:
            while self.step < s.steps and not self.interrupted:
                began = time.perf_counter()
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(s, self.step)
                for self._part in range(s.gradient_accumulation):
                    yield next(left).to(accelerator.device)
                self.seconds += time.perf_counter() - began
                self.step += 1
                bar.update()
                if self.step % s.log_every == 0 or self.step == s.steps:
                    values = self._log(write)
                    bar.set_postfix(loss=f"{values['loss']:.3f}")
                self.interrupted = interrupt.agreed(accelerator)
                due = self.step % s.checkpoint_every == 0 or self.step == s.steps
                if due or self.interrupted:
                    more = {"since_log": self._sums.tolist(), "seconds": self.seconds}
                    self.checkpoints.save(accelerator, self.step, more)
        finally:
            bar.close()
            interrupt.release()
        if self.interrupted:
            accelerator.print(
                f"\ninterrupted at step {self.step}: checkpoint written; the same command goes on"
            )
        elif accelerator.is_main_process and not (self.folder / "training.json").is_file():
            write_json(self.folder / "training.json", self._speed())

    def hide(self, batch: TokenBatch) -> tuple[TrainingMask, Tensor]:
        """A mask for the batch, and bool [B]: whose conditioning is hidden too."""
        s, accelerator = self.settings, self.accelerator
        noise = torch.Generator().manual_seed(
            step_seed(s.seed, self.step, self._part, accelerator.process_index)
        )
        mask = training_mask(batch.codes, batch.lengths, self.model.mask_id, noise)
        hidden = torch.rand(len(batch.codes), generator=noise) < s.conditioning_dropout
        return mask, hidden.to(accelerator.device)

    @contextmanager
    def one_pass(self) -> Iterator[None]:
        """Around forward and `descend`: gradient accumulation and mixed precision."""
        with self.accelerator.accumulate(self.network), self.accelerator.autocast():
            yield

    def descend(self, loss: Tensor) -> None:
        """Back-propagate, clip, and step where the gradient is whole."""
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self._loss = loss.detach()

    def note(self, logits: Tensor, batch: TokenBatch, mask: TrainingMask) -> None:
        """Count the pass for the next line of the history."""
        hits, seen = level_accuracy(logits, batch.codes, mask, self.model.n_codebooks)
        self._sums += torch.cat([self._loss[None], torch.ones_like(self._loss)[None], hits, seen])

    def _log(self, write: Callable[[dict[str, float]], None] | None) -> dict[str, float]:
        s = self.settings
        sums = self.accelerator.reduce(self._sums, "sum").tolist()
        self._sums.zero_()
        n_levels = self.model.n_codebooks
        right, seen = sums[2 : 2 + n_levels], sums[2 + n_levels :]
        values = {"loss": sums[0] / sums[1]}
        values |= {f"accuracy/level{k}": right[k] / n for k, n in enumerate(seen) if n}
        if not math.isfinite(values["loss"]):
            raise SystemExit(f"stopped at step {self.step}: loss {values['loss']}; lower the rate")
        due = self.step % s.validate_every == 0 or self.step == s.steps
        if self._validation is not None and due:
            values |= self._validate(self._validation)
        line = {"step": self.step, **values}
        self.history.append(line)
        if write:
            write(line)
        self.accelerator.log(values, step=self.step)
        return values

    @torch.no_grad()
    def _validate(self, split: Any) -> dict[str, float]:
        """Loss and accuracy on one fixed excerpt and mask per validation utterance."""
        self.network.eval()
        s = self.settings
        data = CropDataset(split, self._crop_frames, n_items=len(split), seed=s.seed)
        losses, hits, seen = [], 0.0, 0.0
        for i, batch in enumerate(DataLoader(data, s.batch_size, collate_fn=collate)):
            batch = batch.to(self.accelerator.device)
            noise = torch.Generator().manual_seed(s.seed + i)
            mask = training_mask(batch.codes, batch.lengths, self.model.mask_id, noise)
            with self.accelerator.autocast():
                logits = self.network(
                    mask.tokens, batch.conditioning, lengths=batch.lengths, level=mask.level
                )
            losses.append(masked_cross_entropy(logits, batch.codes, mask).item())
            right, total = level_accuracy(logits, batch.codes, mask, batch.codes.shape[1])
            hits, seen = hits + right.sum().item(), seen + total.sum().item()
        self.network.train()
        return {"validation/loss": sum(losses) / len(losses), "validation/accuracy": hits / seen}

    def _speed(self) -> dict[str, Any]:
        accelerator = self.accelerator
        return {
            "steps": self.step,
            "seconds": self.seconds,
            "steps_per_second": self.step / self.seconds if self.seconds else None,
            "device": accelerator.device.type,
            **conditions_of(accelerator),
        }
