"""The training loop of a causal model of codes.

    training = CausalTraining(accelerator, model, tokens, settings, folder)
    for batch in training.batches():
        loss = training.loss(batch)
        training.descend(loss)
    training.save_model(folder / "model")

All randomness depends on (seed, step), and item i of the data on (seed, i). So a killed run resumes
with the same weights, and several processes train on the same data as one.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tokgen.codec.base import Codec
from tokgen.modelling.causal import CausalModel, CausalTransformer, code_bits
from tokgen.modelling.causal_depth import CausalDepthNetwork
from tokgen.nn.cards import ModelCardFacts
from tokgen.nn.ema import Ema
from tokgen.runs.checkpoints import Checkpoints
from tokgen.runs.folder import append_history, read_history
from tokgen.runs.interrupts import Interrupt
from tokgen.runs.progress import progress_bar
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.causal_settings import CausalTrainingSettings
from tokgen.training.excerpts import CropDataset, TokenBatch, collate
from tokgen.training.settings import learning_rate

__all__ = ["CausalTraining", "make_causal_model"]

_KINDS: dict[str, type[CausalModel]] = {
    "depth": CausalDepthNetwork,
    "transformer": CausalTransformer,
}


def make_causal_model(
    codec: Codec, tokens: TokenDataset, settings: CausalTrainingSettings
) -> CausalModel:
    """Create the model that the settings describe.

    Raises:
        ValueError: a size is not one of the model's, or the tokens are of another codec.
    """
    kind = _KINDS[settings.kind]
    try:
        return kind.for_tokens(codec, tokens, **settings.model)
    except TypeError as error:
        raise ValueError(f"model = {dict(settings.model)}: {error}") from error


class CausalTraining:
    """One training run. It continues from the newest checkpoint in `folder`.

    Args:
        accelerator: from `make_accelerator`.
        model: a new model.
        tokens: trains on the train split; validates on the validation split if there is one.
        settings: see `CausalTrainingSettings`.
        folder: folder of the run, for checkpoints/ and history.jsonl.

    Attributes:
        step: optimiser steps done, including those before a resume.
        history: logged values, one dict per line: bits per code, and those of each level.
        card: facts for the model's card: data and settings.
        interrupted: Ctrl-C or SIGTERM ended the loop; a checkpoint was written.

    Raises:
        ValueError: the tokens have no train split.
    """

    def __init__(
        self,
        accelerator: Any,
        model: CausalModel,
        tokens: TokenDataset,
        settings: CausalTrainingSettings,
        folder: Path,
    ) -> None:
        if not len(tokens.splits.get("train", ())):
            raise ValueError(
                f"the tokens have no train split, only {sorted(tokens.splits)}: tokenize a corpus "
                "with clips to train on"
            )
        self.accelerator, self.model, self.settings = accelerator, model, settings
        self.folder, self.interrupted = folder, False
        optimizer = torch.optim.AdamW(
            model.parameters(),
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            betas=(0.9, 0.98),
        )
        self.network, self.optimizer = accelerator.prepare(model, optimizer)
        self.checkpoints = Checkpoints(folder / "checkpoints")
        self._ema = Ema(model, settings.ema)
        self.step, saved = self.checkpoints.resume(accelerator, self._ema)
        since_log = saved.get("since_log") if accelerator.is_main_process else None
        self._sums = np.array(since_log or np.zeros((2, model.n_codebooks)))
        lines = read_history(folder / "history.jsonl")
        self.history = [line for line in lines if line["step"] <= self.step]
        about = tokens.provenance
        self._frames = max(1, round(settings.crop_seconds * about.spec.frame_rate))
        self._split, self._validation = tokens.splits["train"], tokens.splits.get("validation")
        self.card = ModelCardFacts(
            corpus=about.corpus,
            fingerprint=about.corpus_fingerprint,
            hours=sum(self._split["n_samples"]) / about.sample_rate / 3600,
            settings={k: v for k, v in asdict(settings).items() if k in _FIELDS},
        )

    def batches(self) -> Iterator[TokenBatch]:
        """Yield the batches that are left, on the device.

        Between batches this sets the learning rate, logs, validates and saves checkpoints. It ends
        early on Ctrl-C or SIGTERM; several processes agree on that at the next log line.

        Raises:
            FloatingPointError: the loss is no longer finite.
        """
        s, accelerator = self.settings, self.accelerator
        main = accelerator.is_main_process
        write = append_history(self.folder / "history.jsonl", self.history) if main else None
        if self.step:
            accelerator.print(f"continuing at step {self.step} of {s.steps}")
        each = s.batch_size * accelerator.num_processes
        excerpts = CropDataset(self._split, self._frames, n_items=s.steps * each, seed=s.seed)
        mine = accelerator.process_index * s.batch_size
        interrupt = Interrupt()
        bar = progress_bar(
            "training", total=s.steps, initial=self.step, unit="step", show=main
        )  # fmt: skip
        try:
            while self.step < s.steps and not self.interrupted:
                for group in self.optimizer.param_groups:
                    group["lr"] = learning_rate(s, self.step)
                first = self.step * each + mine
                batch = collate([excerpts[i] for i in range(first, first + s.batch_size)])
                batch.codes = batch.codes[:, : self._levels()]
                yield batch.to(accelerator.device)
                self._ema.update()
                self.step += 1
                bar.update()
                if log := self.step % s.log_every == 0 or self.step == s.steps:
                    line = self._log()
                    self.history.append(line)
                    if write:
                        write(line)
                    bar.note(bits=f"{line['bits']:.3f}")
                if log or accelerator.num_processes == 1:
                    self.interrupted = interrupt.agreed(accelerator)
                if self.step % s.checkpoint_every == 0 or self.step == s.steps or self.interrupted:
                    extra = {"since_log": self._summed().tolist()}
                    self.checkpoints.save(accelerator, self.step, extra, self._ema)
        finally:
            bar.close()
            interrupt.release()
        if self.interrupted:
            accelerator.print(
                f"\ninterrupted at step {self.step}: checkpoint written; run the same command "
                "again to continue"
            )

    def _levels(self) -> int:
        """Levels of this step's batch."""
        draw = np.random.default_rng((self.settings.seed, self.step, 2))
        n = self.model.n_codebooks
        few = draw.random() < self.settings.level_dropout
        return int(draw.integers(1, n + 1)) if few else n

    def loss(self, batch: TokenBatch) -> Tensor:
        """Run the network on a batch; returns the mean bits per code."""
        bits, inside = self._bits(batch)
        levels = bits.shape[1]
        self._sums[0, :levels] += bits.detach().sum((0, 2)).double().cpu().numpy()
        self._sums[1, :levels] += inside
        return bits.sum() / (inside * levels)

    def _bits(self, batch: TokenBatch) -> tuple[Tensor, int]:
        """Bits of each code [B, n, T], 0 after each item's end, and the number of frames."""
        with self.accelerator.autocast():
            logits = self.network(batch.codes)
        inside = torch.arange(batch.codes.shape[-1], device=batch.codes.device)
        inside = inside < batch.lengths[:, None]
        return code_bits(logits, batch.codes) * inside[:, None], int(batch.lengths.sum())

    def descend(self, loss: Tensor) -> None:
        """Back-propagate, clip and take the optimiser step."""
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.model.parameters(), self.settings.clip)
        self.optimizer.step()
        self.optimizer.zero_grad()

    def save_model(self, folder: Path, card: ModelCardFacts | None = None) -> None:
        """Save the model, with averaged weights if `ema` is set. Every process must call this.

        Args:
            card: facts for the card; None means `self.card`.
        """
        with self._ema.in_place():
            if self.accelerator.is_main_process:
                model = self.accelerator.unwrap_model(self.network)
                model.save_pretrained(folder, card=card or self.card)
        self.accelerator.wait_for_everyone()

    def _summed(self) -> np.ndarray:
        """Bits and frames [2, K] since the last line of the history, over all processes."""
        sums = torch.from_numpy(self._sums).to(self.accelerator.device)
        return self.accelerator.reduce(sums, "sum").cpu().numpy()

    def _log(self) -> dict[str, float]:
        """Return a line of the history, and validate if it is time."""
        s = self.settings
        values = _describe("", *self._summed())
        if not math.isfinite(values["bits"]):
            raise FloatingPointError(
                f"stopped at step {self.step}: {values['bits']} bits; lower learning_rate"
            )
        due = self.step % s.validate_every == 0 or self.step == s.steps
        if self._validation is not None and due:
            with self._ema.in_place():
                values |= self._validate(self._validation)
        self._sums = np.zeros_like(self._sums)
        self.accelerator.log(values, step=self.step)
        return {"step": self.step, **values}

    @torch.no_grad()
    def _validate(self, split: Any) -> dict[str, float]:
        """Bits per code over one fixed excerpt of each validation utterance."""
        self.network.eval()
        s = self.settings
        data = CropDataset(split, self._frames, n_items=len(split), seed=s.seed)
        total = np.zeros((2, self.model.n_codebooks))
        for batch in DataLoader(data, s.batch_size, collate_fn=collate):
            bits, inside = self._bits(batch.to(self.accelerator.device))
            total[0] += bits.sum((0, 2)).double().cpu().numpy()
            total[1] += inside
        self.network.train()
        return _describe("validation/", *total)


_FIELDS = set(CausalTrainingSettings.__dataclass_fields__) - {"tracker", "mixed_precision"}


def _describe(prefix: str, bits: np.ndarray, frames: np.ndarray) -> dict[str, float]:
    """Bits per code, over all levels and of each level, of sums [K] over frames."""
    seen = frames > 0
    levels = {f"{prefix}bits/level{k}": bits[k] / frames[k] for k in np.flatnonzero(seen)}
    mean = float(bits.sum() / frames.sum()) if frames.sum() else math.nan
    return {f"{prefix}bits": mean, **{k: float(v) for k, v in levels.items()}}
