"""Around the loop that trains a masked transformer: data, optimiser, checkpoints, history.

    training = Training(accelerator, model, tokens, settings, folder)
    for batch in training.batches():
        mask = batch.mask
        with training.one_pass():
            logits = training.network(
                mask.tokens, batch.conditioning, drop_conditioning=batch.hidden,
                lengths=batch.lengths if batch.padded else None, documents=batch.documents,
                level=mask.level, where=training.where(mask),
            )
            training.descend(masked_cross_entropy(logits, batch.codes, mask))
        training.note(logits, batch)
    training.save_model(folder / "model")

The loop itself stands in the recipe. All randomness depends on (seed, step) alone, and item i of
the data on (seed, i), so a run that was killed goes on as if nothing had happened, and several
processes train on what one would. Between two logs the host never waits for a GPU.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.masking import (
    TrainingMask,
    level_accuracy,
    masked_cross_entropy,
    training_mask,
)
from tokgen.nn.ema import Ema
from tokgen.runs.accelerator import conditions_of, make_accelerator
from tokgen.runs.checkpoints import Checkpoints
from tokgen.runs.folder import append_history, read_history, write_json
from tokgen.runs.interrupts import Interrupt
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.data import TrainingBatch, TrainingData
from tokgen.training.excerpts import CropDataset, collate
from tokgen.training.flops import Counts, peak_flops, training_flops
from tokgen.training.settings import TrainingSettings, learning_rate

__all__ = ["Training", "TrainingSettings", "conditions_of", "learning_rate", "make_accelerator"]


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
        waiting: seconds of them without a batch to work on.
        counts: what there was to compute on this device; `flops` follows from it.
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
        if settings.compile and accelerator.distributed_type == DistributedType.FSDP:
            raise ValueError("compile = True under FSDP: not tried together yet; leave one out")
        network = torch.compile(model) if settings.compile else model
        self.network, self.optimizer = accelerator.prepare(network, optimizer)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self.step, saved = self.checkpoints.resume(accelerator)
        self._ema = Ema(model, settings.ema) if settings.ema else None
        if self._ema and self.step:
            self._ema.load(self.checkpoints.path(self.step) / self._ema_file)
        self.seconds: float = saved.get("seconds", 0.0)
        self.waiting: float = saved.get("waiting", 0.0)
        self.counts = Counts(*saved.get("counts", ()))
        empty = [0.0] * (2 + 2 * model.n_codebooks)  # loss, passes, right and seen tokens per level
        since_log = saved.get("since_log", empty) if accelerator.is_main_process else empty
        self._sums = torch.tensor(since_log, device=accelerator.device)
        lines = read_history(folder / "history.jsonl")
        self.history = [line for line in lines if line["step"] <= self.step]
        rate = tokens.provenance.spec.frame_rate
        self._crop_frames = round(settings.crop_seconds * rate)
        self.data = TrainingData(
            tokens.splits["train"],
            settings,
            (self._crop_frames, round(settings.crop_seconds_min * rate)),
            model.mask_id,
            process=accelerator.process_index,
            processes=accelerator.num_processes,
        )
        self._validation = tokens.splits.get("validation")
        self._loss = torch.zeros((), device=accelerator.device)

    def batches(self) -> Iterator[TrainingBatch]:
        """What is left to train on, on the device.

        Between two batches it moves the learning rate, logs, validates and saves checkpoints.
        Ends early when interrupted; one of several processes is heard when the next line is logged.

        Raises:
            SystemExit: the loss is not finite any more.
        """
        s, accelerator = self.settings, self.accelerator
        write = None
        if accelerator.is_main_process:
            write = append_history(self.folder / "history.jsonl", self.history)
        if self.step:
            accelerator.print(f"continuing at step {self.step} of {s.steps}")
        interrupt, on_gpu = Interrupt(), accelerator.device.type == "cuda"
        left = iter(self.data.loader(self.step * s.gradient_accumulation, pin_memory=on_gpu))
        bar = tqdm(
            total=s.steps, initial=self.step, unit="step", disable=not accelerator.is_main_process
        )
        try:
            while self.step < s.steps and not self.interrupted:
                began = time.perf_counter()
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(s, self.step)
                for _ in range(s.gradient_accumulation):
                    asked = time.perf_counter()
                    batch = next(left)
                    self.waiting += time.perf_counter() - asked
                    yield batch.to(accelerator.device, non_blocking=True)
                    self.counts += batch.counts
                if self._ema:
                    self._ema.update()
                self.step += 1
                bar.update()
                log = self.step % s.log_every == 0 or self.step == s.steps
                due = self.step % s.checkpoint_every == 0 or self.step == s.steps
                if on_gpu and (log or due):
                    torch.cuda.synchronize(accelerator.device)
                self.seconds += time.perf_counter() - began
                if log:
                    values = self._log(write)
                    bar.set_postfix(loss=f"{values['loss']:.3f}")
                if log or accelerator.num_processes == 1:
                    self.interrupted = interrupt.agreed(accelerator)
                if due or self.interrupted:
                    self._save()
        finally:
            bar.close()
            interrupt.release()
        if self.interrupted:
            accelerator.print(
                f"\ninterrupted at step {self.step}: checkpoint written; the same command goes on"
            )
        elif accelerator.is_main_process and not (self.folder / "training.json").is_file():
            write_json(self.folder / "training.json", self._summary())

    def where(self, mask: TrainingMask) -> Tensor | None:
        """Where logits are worth computing: at hidden positions, `MaskedTransformer.forward`'s.

        None, all positions, on a GPU and in compiled code: counting positions would have the host
        wait, which costs more than the head.
        """
        on_cpu = self.accelerator.device.type == "cpu"
        return mask.target if on_cpu and not self.settings.compile else None

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

    def note(self, logits: Tensor, batch: TrainingBatch) -> None:
        """Count the pass for the next line of the history."""
        hits, seen = level_accuracy(logits, batch.codes, batch.mask, self.model.n_codebooks)
        self._sums += torch.cat([self._loss[None], torch.ones_like(self._loss)[None], hits, seen])

    def save_model(self, folder: Path) -> None:
        """Save the model, averaged with `ema`, from all processes; every one must call it."""
        with self._averaged():
            state = self.accelerator.get_state_dict(self.network)
            if self.accelerator.is_main_process:
                whole = type(self.model)(**self.model.config)
                whole.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in state.items()})
                whole.save_pretrained(folder)
        self.accelerator.wait_for_everyone()

    @property
    def _ema_file(self) -> str:
        """Of this process: they hold equal averages, but for shards under FSDP."""
        return f"ema-{self.accelerator.process_index}.safetensors"

    def _averaged(self) -> AbstractContextManager[None]:
        return self._ema.in_place() if self._ema else nullcontext()

    def _save(self) -> None:
        def add(folder: Path) -> None:
            if self._ema:
                self._ema.save(folder / self._ema_file)

        sums = self.accelerator.reduce(self._sums, "sum")  # of all processes
        more = {"since_log": sums.tolist(), "seconds": self.seconds}
        more |= {"waiting": self.waiting, "counts": list(astuple(self.counts))}
        self.checkpoints.save(self.accelerator, self.step, more, add)

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
            with self._averaged():
                values |= self._validate(self._validation)
        line = {"step": self.step, **values}
        self.history.append(line)
        if write:
            write(line)
        speed = {f"speed/{k}": v for k, v in self.speed().items() if v is not None}
        self.accelerator.log(values | speed, step=self.step)
        return values

    @torch.no_grad()
    def _validate(self, split: Any) -> dict[str, float]:
        """Loss and accuracy on one fixed excerpt and mask per validation utterance."""
        self.network.eval()
        s = self.settings
        data = CropDataset(split, self._crop_frames, n_items=len(split), seed=s.seed)
        losses, hits, seen = [], 0.0, 0.0
        size = s.batch_size * self.accelerator.num_processes  # masks as of one process
        for i, batch in enumerate(DataLoader(data, size, collate_fn=collate)):
            batch = batch.to(self.accelerator.device)
            noise = torch.Generator().manual_seed(s.seed + i)
            mask = training_mask(batch.codes, batch.lengths, self.model.mask_id, noise)
            with self.accelerator.autocast():
                logits = self.network(
                    mask.tokens,
                    batch.conditioning,
                    lengths=batch.lengths if batch.padded else None,
                    level=mask.level,
                    where=self.where(mask),
                )
            losses.append(masked_cross_entropy(logits, batch.codes, mask).item())
            right, total = level_accuracy(logits, batch.codes, mask, batch.codes.shape[1])
            hits, seen = hits + right.sum().item(), seen + total.sum().item()
        self.network.train()
        return {"validation/loss": sum(losses) / len(losses), "validation/accuracy": hits / seen}

    @property
    def flops(self) -> int:
        """That all steps so far asked for on this device (`tokgen.training.flops`)."""
        return training_flops(self.model, self.counts)

    def speed(self) -> dict[str, float | None]:
        """Over all steps so far; FLOPs and their share of the vendor's peak (MFU) of one device."""
        accelerator, seconds = self.accelerator, self.seconds
        if not seconds:
            return dict.fromkeys(
                ("steps_per_second", "waiting_share", "model_flops_per_second", "mfu")
            )
        device, rate = accelerator.device, self.flops / seconds
        name = torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu"
        peak = peak_flops(name, accelerator.mixed_precision)
        return {
            "steps_per_second": self.step / seconds,
            "waiting_share": self.waiting / seconds,
            "model_flops_per_second": rate,
            "mfu": rate / peak if peak else None,
        }

    def _summary(self) -> dict[str, Any]:
        accelerator = self.accelerator
        return {
            "steps": self.step,
            "seconds": self.seconds,
            **self.speed(),
            "device": accelerator.device.type,
            **conditions_of(accelerator),
        }
