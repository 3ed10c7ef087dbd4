"""The training loop of a model of codes, whatever it learns.

    training = MaskedTraining(accelerator, model, tokens, settings, folder)  # or CausalTraining
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
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Generic, TypeVar

import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tokgen.nn.cards import ModelCardFacts
from tokgen.nn.ema import Ema
from tokgen.runs.accelerator import conditions_of
from tokgen.runs.checkpoints import Checkpoints
from tokgen.runs.folder import append_history, read_history, write_json
from tokgen.runs.interrupts import Interrupt
from tokgen.runs.progress import progress_bar
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.card import card_facts
from tokgen.training.excerpts import CropDataset, TokenBatch, collate
from tokgen.training.settings import LoopSettings, learning_rate

__all__ = ["Training", "check_train_split"]

Model = TypeVar("Model", bound=Any)
Settings = TypeVar("Settings", bound=LoopSettings)
Batch = TypeVar("Batch", bound=TokenBatch)


def check_train_split(tokens: TokenDataset) -> None:
    """Raise ValueError if there is nothing to train on."""
    if not len(tokens.splits.get("train", ())):
        raise ValueError(
            f"the tokens have no train split, only {sorted(tokens.splits)}: tokenize a corpus with "
            "clips to train on"
        )


class Training(ABC, Generic[Model, Settings, Batch]):
    """One training run. It continues from the newest checkpoint in `folder`.

    Subclasses say which batches there are, what the loss is, and what is logged.

    Args:
        accelerator: from `make_accelerator`.
        model: a new model.
        tokens: trains on the train split; validates on the validation split if there is one.
        settings: of the loop, and those of the subclass.
        folder: folder of the run, for checkpoints/, history.jsonl and, at the end, training.json.

    Attributes:
        network: the model, prepared by Accelerate.
        step: optimiser steps done, including those before a resume.
        seconds: time of these steps, without validation and checkpoints.
        waiting: part of `seconds` spent waiting for batches.
        history: logged values, one dict per line.
        card: facts for the model's card: data and settings.
        interrupted: Ctrl-C or SIGTERM ended the loop; a checkpoint was written.

    Raises:
        ValueError: the tokens have no train split.
    """

    objective: ClassVar[str] = "loss"  # what the loop prints, of the values that it logs
    adamw: ClassVar[Mapping[str, Any]] = {}  # arguments of the optimiser that are not settings

    def __init__(
        self,
        accelerator: Any,
        model: Model,
        tokens: TokenDataset,
        settings: Settings,
        folder: Path,
    ) -> None:
        check_train_split(tokens)
        self.accelerator, self.model, self.settings = accelerator, model, settings
        self.folder, self.interrupted = folder, False
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            **self.adamw,
        )
        self.network, self.optimizer = accelerator.prepare(self.wrapped(), optimizer)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self._ema = Ema(model, settings.ema)
        self.step, self._saved = self.checkpoints.resume(accelerator, self._ema)
        self.seconds: float = self._saved.get("seconds", 0.0)
        self.waiting: float = self._saved.get("waiting", 0.0)
        self._sums = self.empty_sums().to(accelerator.device)
        if accelerator.is_main_process and "since_log" in self._saved:
            self._sums.copy_(torch.tensor(self._saved["since_log"], dtype=self._sums.dtype))
        lines = read_history(folder / "history.jsonl")
        self.history = [line for line in lines if line["step"] <= self.step]
        self.frame_rate = tokens.provenance.spec.frame_rate
        self.crop_frames = max(1, round(settings.crop_seconds * self.frame_rate))
        self.split, self._validation = tokens.splits["train"], tokens.splits.get("validation")
        self.card = card_facts(tokens, settings, precision=accelerator.mixed_precision)

    @abstractmethod
    def passes(self, first: int) -> Iterator[Batch]:
        """Yield this process's batches on the CPU, from pass `first` on."""

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Run the network on a batch and add to the sums for the next line of the history."""

    @abstractmethod
    def empty_sums(self) -> Tensor:
        """Return zeros, one for each sum that `loss` adds to."""

    @abstractmethod
    def describe(self, sums: Tensor) -> dict[str, float]:
        """Return the values to log, `objective` among them, of sums over all processes."""

    @abstractmethod
    def validate(self, batches: Callable[[int], Iterator[TokenBatch]]) -> dict[str, float]:
        """Return the values to log of the validation split.

        Args:
            batches: gives one fixed excerpt of each utterance, in batches of the size it is told.
        """

    def wrapped(self) -> Any:
        """Return the network to train, which shares the parameters of `model`."""
        return self.model

    def state(self) -> dict[str, Any]:
        """Return the JSON-ready values that a checkpoint keeps, besides weights and averages."""
        since_log = self.accelerator.reduce(self._sums, "sum").tolist()  # of all processes
        return {"since_log": since_log, "seconds": self.seconds, "waiting": self.waiting}

    def batches(self) -> Iterator[Batch]:
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
        left = iter(self.passes(self.step * s.gradient_accumulation))
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
                    bar.note(**{self.objective: f"{values[self.objective]:.3f}"})
                if log or accelerator.num_processes == 1:
                    self.interrupted = interrupt.agreed(accelerator)
                if due or self.interrupted:
                    self.checkpoints.save(accelerator, self.step, self.state(), self._ema)
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

    def _log(self, write: Callable[[dict[str, float]], None] | None) -> dict[str, float]:
        s = self.settings
        values = self.describe(self.accelerator.reduce(self._sums, "sum"))
        self._sums.zero_()
        if not math.isfinite(values[self.objective]):
            raise FloatingPointError(
                f"stopped at step {self.step}: {self.objective} {values[self.objective]}; lower "
                "learning_rate"
            )
        if self._validation is not None and (
            self.step % s.validate_every == 0 or self.step == s.steps
        ):
            self.network.eval()
            with self._ema.in_place(), torch.no_grad():
                values |= self.validate(self._validation_batches)
            self.network.train()
        line = {"step": self.step, **values}
        self.history.append(line)
        if write:
            write(line)
        speed = {f"speed/{k}": v for k, v in self.speed().items() if v is not None}
        self.accelerator.log(values | speed, step=self.step)
        return values

    def _validation_batches(self, size: int) -> Iterator[TokenBatch]:
        n = len(self._validation)
        data = CropDataset(self._validation, self.crop_frames, n_items=n, seed=self.settings.seed)
        for batch in DataLoader(data, size, collate_fn=collate):
            yield batch.to(self.accelerator.device)

    def speed(self) -> dict[str, float | None]:
        """Speed over all steps so far, with None for what is unknown.

        Returns:
            steps_per_second and waiting_share (of the time).
        """
        if not self.seconds:
            return dict.fromkeys(("steps_per_second", "waiting_share"))
        return {
            "steps_per_second": self.step / self.seconds,
            "waiting_share": self.waiting / self.seconds,
        }
