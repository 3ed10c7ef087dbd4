"""The training loop of a masked transformer.

    training = Training(accelerator, model, tokens, settings, folder)
    for batch in training.batches():
        loss = training.loss(batch)
        training.descend(loss)
    training.save_model(folder / "model")

All randomness depends on (seed, step), and item i of the data on (seed, i). So a killed run resumes
with the same weights, and several processes train on the same data as one. The host does not wait
for a GPU between two log lines.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from accelerate import DistributedType
from torch import Tensor
from torch.utils.data import DataLoader

from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.masking import (
    TrainingMask,
    level_accuracy,
    masked_cross_entropy,
    training_mask,
)
from tokgen.nn.cards import ModelCardFacts
from tokgen.nn.ema import Ema
from tokgen.runs.accelerator import conditions_of
from tokgen.runs.checkpoints import Checkpoints
from tokgen.runs.folder import append_history, read_history, write_json
from tokgen.runs.interrupts import Interrupt
from tokgen.runs.progress import progress_bar
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.card import card_facts
from tokgen.training.data import TrainingBatch, TrainingData
from tokgen.training.excerpts import CropDataset, TokenBatch, collate
from tokgen.training.flops import Counts, peak_flops, training_flops
from tokgen.training.settings import TrainingSettings, learning_rate

__all__ = ["Training"]


class Training:
    """One training run. It continues from the newest checkpoint in `folder`.

    Args:
        accelerator: from `make_accelerator`.
        model: a new model.
        tokens: trains on the train split; validates on the validation split if there is one.
        settings: see `TrainingSettings`.
        folder: folder of the run, for checkpoints/, history.jsonl and, at the end, training.json.

    Attributes:
        network: the model, prepared by Accelerate and compiled if the settings say so.
        step: optimiser steps done, including those before a resume.
        seconds: time of these steps, without validation and checkpoints.
        waiting: part of `seconds` spent waiting for batches.
        counts: amount of computation on this device so far; `flops` uses it.
        history: logged values, one dict per line.
        card: facts for the model's card: data and settings.
        interrupted: Ctrl-C or SIGTERM ended the loop; a checkpoint was written.
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
            raise ValueError("compile = True is not tested under FSDP: use one of the two")
        network = torch.compile(model) if settings.compile else model
        self.network, self.optimizer = accelerator.prepare(network, optimizer)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self._ema = Ema(model, settings.ema)
        self.step, saved = self.checkpoints.resume(accelerator, self._ema)
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
        self.card = card_facts(tokens, settings, precision=accelerator.mixed_precision)

    def batches(self) -> Iterator[TrainingBatch]:
        """Yield the batches that are left, on the device.

        Between batches this sets the learning rate, logs, validates and saves checkpoints. It ends
        early on Ctrl-C or SIGTERM; several processes agree on that at the next log line.

        Raises:
            FloatingPointError: the loss is no longer finite.
        """
        s, accelerator = self.settings, self.accelerator
        write = None
        if accelerator.is_main_process:
            write = append_history(self.folder / "history.jsonl", self.history)
        if self.step:
            accelerator.print(f"continuing at step {self.step} of {s.steps}")
        interrupt, on_gpu = Interrupt(), accelerator.device.type == "cuda"
        left = iter(self.data.loader(self.step * s.gradient_accumulation, pin_memory=on_gpu))
        bar = progress_bar(
            "training",
            total=s.steps,
            initial=self.step,
            unit="step",
            show=accelerator.is_main_process,
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
                    with accelerator.accumulate(self.network):
                        yield batch.to(accelerator.device, non_blocking=True)
                    self.counts += batch.counts
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
                    bar.note(loss=f"{values['loss']:.3f}")
                if log or accelerator.num_processes == 1:
                    self.interrupted = interrupt.agreed(accelerator)
                if due or self.interrupted:
                    self._save()
        finally:
            bar.close()
            interrupt.release()
        if self.interrupted:
            accelerator.print(
                f"\ninterrupted at step {self.step}: checkpoint written; run the same command "
                "again to continue"
            )
        elif accelerator.is_main_process and not (self.folder / "training.json").is_file():
            summary = {"steps": self.step, "seconds": self.seconds, **self.speed()}
            summary |= {"device": accelerator.device.type, **conditions_of(accelerator)}
            write_json(self.folder / "training.json", summary)

    def loss(self, batch: TrainingBatch) -> Tensor:
        """Run the network on a batch and count the pass for the next line of the history.

        Returns:
            the mean cross-entropy (nats) of the hidden positions.
        """
        logits = self._logits(batch, batch.mask, batch.hidden)
        loss = masked_cross_entropy(logits, batch.codes, batch.mask)
        hits, seen = level_accuracy(logits, batch.codes, batch.mask, self.model.n_codebooks)
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

    def descend(self, loss: Tensor) -> None:
        """Back-propagate. After the last pass of a step, clip and take the optimiser step."""
        self.accelerator.backward(loss)
        if self.accelerator.sync_gradients:
            self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save_model(self, folder: Path, card: ModelCardFacts | None = None) -> None:
        """Save the model, with averaged weights if `ema` is set. Every process must call this.

        Args:
            card: facts for the card; None means `self.card`.
        """
        with self._ema.in_place():
            state = self.accelerator.get_state_dict(self.network)
            if self.accelerator.is_main_process:
                whole = type(self.model)(**self.model.config)
                whole.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in state.items()})
                whole.save_pretrained(folder, card=card or self.card)
        self.accelerator.wait_for_everyone()

    def _save(self) -> None:
        extra = {
            "since_log": self.accelerator.reduce(self._sums, "sum").tolist(),  # of all processes
            "seconds": self.seconds,
            "waiting": self.waiting,
            "counts": list(astuple(self.counts)),
        }
        self.checkpoints.save(self.accelerator, self.step, extra, self._ema)

    def _log(self, write: Callable[[dict[str, float]], None] | None) -> dict[str, float]:
        s = self.settings
        sums = self.accelerator.reduce(self._sums, "sum").tolist()
        self._sums.zero_()
        n_levels = self.model.n_codebooks
        right, seen = sums[2 : 2 + n_levels], sums[2 + n_levels :]
        values = {"loss": sums[0] / sums[1]}
        values |= {f"accuracy/level{k}": right[k] / n for k, n in enumerate(seen) if n}
        if not math.isfinite(values["loss"]):
            raise FloatingPointError(
                f"stopped at step {self.step}: loss {values['loss']}; lower learning_rate"
            )
        due = self.step % s.validate_every == 0 or self.step == s.steps
        if self._validation is not None and due:
            with self._ema.in_place():
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
        size = s.batch_size * self.accelerator.num_processes  # one process draws the same masks
        for i, batch in enumerate(DataLoader(data, size, collate_fn=collate)):
            batch = batch.to(self.accelerator.device)
            generator = torch.Generator().manual_seed(s.seed + i)
            mask = training_mask(batch.codes, batch.lengths, self.model.mask_id, generator)
            logits = self._logits(batch, mask, None)
            losses.append(masked_cross_entropy(logits, batch.codes, mask).item())
            right, total = level_accuracy(logits, batch.codes, mask, batch.codes.shape[1])
            hits, seen = hits + right.sum().item(), seen + total.sum().item()
        self.network.train()
        return {"validation/loss": sum(losses) / len(losses), "validation/accuracy": hits / seen}

    @property
    def flops(self) -> int:
        """FLOPs of all steps so far on this device, by `tokgen.training.flops`."""
        return training_flops(self.model, self.counts)

    def speed(self) -> dict[str, float | None]:
        """Speed over all steps so far, with None for what is unknown.

        Returns:
            steps_per_second, waiting_share (of the time), model_flops_per_second of one device, and
            mfu, their share of the vendor's peak.
        """
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
