"""The training of a text model: align symbols and frames, predict durations and features."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tokgen.modelling.text.model import TextLosses, TextModel
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.excerpts import CropDataset, TokenBatch, collate, row_lengths
from tokgen.training.loop import Training
from tokgen.training.settings import TextTrainingSettings

__all__ = ["TextBatch", "TextTraining", "TranscribedSpeech"]

_POOL = 8  # batches whose rows are sorted by length together, for little padding


@dataclass(kw_only=True)
class TextBatch(TokenBatch):
    """A batch of whole utterances with their texts.

    Attributes:
        symbols: int64 [B, L], 0 past the end.
        n_symbols: int64 [B].
    """

    symbols: Tensor
    n_symbols: Tensor


class TranscribedSpeech:
    """Utterances of a token dataset that an aligner can use, with their symbols.

    Left out, with a warning that counts them, are rows without a text, longer ones than
    `max_frames`, and those with more symbols than frames.

    Args:
        split: split of a token dataset with a conditioning.
        model: gives the symbols.
        max_frames: longest utterance.
    Attributes:
        rows: their rows in the split.
    Raises:
        ValueError: no row can be used.
    """

    def __init__(self, split: Any, model: TextModel, max_frames: int) -> None:
        lengths, texts = row_lengths(split), split["text"]
        self.symbols: dict[int, Tensor] = {}
        for row, (frames, text) in enumerate(zip(lengths.tolist(), texts, strict=True)):
            if not text or not text.strip() or frames > max_frames:
                continue
            try:
                symbols = model.symbols.encode(text)
            except ValueError:  # nothing in it is spoken
                continue
            if len(symbols) <= frames:
                self.symbols[row] = symbols
        self.rows = np.array(sorted(self.symbols), dtype=np.int64)
        self.lengths = lengths[self.rows]
        if not len(self.rows):
            raise ValueError(
                f"none of {len(lengths)} clips has a text that fits: each needs a transcript, at "
                f"most {max_frames} frames, and as many frames as symbols"
            )
        if left := len(lengths) - len(self.rows):
            warnings.warn(
                f"left out {left} of {len(lengths)} clips: no transcript, longer than "
                f"{max_frames} frames, or fewer frames than symbols",
                stacklevel=2,
            )
        self._data = CropDataset(split, max_frames, n_items=len(lengths))
        self._frames = max_frames

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, members: Sequence[int]) -> TextBatch:
        """Return utterances as a batch.

        Args:
            members: indices of `rows`.
        """
        rows = [int(self.rows[i]) for i in members]
        batch = collate([self._data.excerpt(row, row, self._frames) for row in rows])
        symbols = [self.symbols[row] for row in rows]
        return TextBatch(
            codes=batch.codes,
            conditioning=batch.conditioning,
            lengths=batch.lengths,
            padded=batch.padded,
            symbols=pad_sequence(symbols, batch_first=True),
            n_symbols=torch.tensor([len(s) for s in symbols]),
        )

    def order(self, seed: int, epoch: int, size: int) -> np.ndarray:
        """Order of an epoch: rows of similar lengths in each batch of `size`."""
        draw = np.random.default_rng((seed, epoch, 0))
        order = draw.permutation(len(self.rows))
        pools = [order[i : i + _POOL * size] for i in range(0, len(order), _POOL * size)]
        order = np.concatenate([pool[np.argsort(self.lengths[pool])] for pool in pools])
        batches = [order[i : i + size] for i in range(0, len(order), size)]
        return np.concatenate([batches[i] for i in draw.permutation(len(batches))])


class TextTraining(Training[TextModel, TextTrainingSettings, TextBatch]):
    """One training run of a text model; see `Training`. Utterances are not cropped.

    Raises:
        ValueError: no utterance of the train split can be used.
    """

    def __init__(
        self,
        accelerator: Any,
        model: TextModel,
        tokens: TokenDataset,
        settings: TextTrainingSettings,
        folder: Path,
    ) -> None:
        super().__init__(accelerator, model, tokens, settings, folder)
        self.speech = TranscribedSpeech(self.split, model, self.crop_frames)
        self._held_out: TranscribedSpeech | None = None
        if self._validation is not None and len(self._validation):
            try:
                self._held_out = TranscribedSpeech(self._validation, model, self.crop_frames)
            except ValueError:  # no clip of it has a text
                self._validation = None

    def passes(self, first: int) -> Iterator[TextBatch]:
        s, accelerator = self.settings, self.accelerator
        each, n = s.batch_size * accelerator.num_processes, len(self.speech)
        epoch, order = -1, np.empty(0, dtype=np.int64)
        for j in range(first, s.steps * s.gradient_accumulation):
            begin = j * each + accelerator.process_index * s.batch_size
            members = []
            for i in range(begin, begin + s.batch_size):
                if i // n != epoch:
                    epoch = i // n
                    order = self.speech.order(s.seed, epoch, each)
                members.append(int(order[i % n]))
            yield self.speech.batch(members)

    def loss(self, batch: TextBatch) -> Tensor:
        """Run the network on a batch; returns the sum of its losses."""
        losses = self._losses(batch)
        parts = torch.stack([losses.alignment, losses.durations, losses.features])
        self._sums += torch.cat([parts.detach(), torch.ones_like(parts[:1])])
        return losses.total

    def _losses(self, batch: TextBatch) -> TextLosses:
        assert batch.conditioning is not None
        with self.accelerator.autocast():
            found: TextLosses = self.network(
                batch.symbols, batch.n_symbols, batch.conditioning.mT, batch.lengths
            )
        return found

    def empty_sums(self) -> Tensor:
        """Zeros for the three losses, and passes."""
        return torch.zeros(4)

    def describe(self, sums: Tensor) -> dict[str, float]:
        alignment, durations, features, passes = sums.tolist()
        names = ("alignment", "durations", "features")
        parts = dict(
            zip(names, (x / passes for x in (alignment, durations, features)), strict=True)
        )
        return {"loss": sum(parts.values()), **parts}

    def validate(self, batches: Callable[[int], Iterator[TokenBatch]]) -> dict[str, float]:
        """Losses of the validation split, by whole utterances."""
        if self._held_out is None:
            return {}
        size, speech, total = self.settings.batch_size, self._held_out, self.empty_sums()
        for i in range(0, len(speech), size):
            batch = speech.batch(range(i, min(i + size, len(speech))))
            found = self._losses(batch.to(self.accelerator.device))
            n = len(batch.lengths)
            total += n * torch.tensor(
                [float(found.alignment), float(found.durations), float(found.features), 1.0]
            )
        return {f"validation/{k}": v for k, v in self.describe(total).items()}
