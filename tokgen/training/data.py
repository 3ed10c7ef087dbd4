"""Training batches: excerpts with their masks.

Batch j is the same for any number of processes, and each process uses its part of it. Masks depend
on (seed, step). Batches are made on the CPU, in the loader's workers.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Subset

from tokgen.modelling.depths import live_levels
from tokgen.modelling.masking import TrainingMask, apply_mask, draw_mask
from tokgen.runs.accelerator import step_seed
from tokgen.runs.workers import leave_interrupts
from tokgen.training.excerpts import CropDataset, Excerpt, TokenBatch, collate, row_lengths
from tokgen.training.flops import Counts
from tokgen.training.settings import FRAME_BUCKET, TrainingSettings

__all__ = ["TrainingBatch", "TrainingData", "pack"]


@dataclass(kw_only=True)
class TrainingBatch(TokenBatch):
    """One process's part of a training batch.

    Attributes:
        mask: hidden positions of one level of each item.
        hidden: bool [B], items whose conditioning is hidden.
        counts: amount of computation.
    """

    mask: TrainingMask
    hidden: Tensor
    counts: Counts


class TrainingData(Dataset):
    """A dataset of training batches. Item j is this process's part of the batch of pass j.

    Args:
        split: split of a token dataset.
        settings: see `TrainingSettings`.
        crop_frames: `crop_seconds` and `crop_seconds_min` in frames.
        mask_id: the MASK token.
        process, processes: index of this process, and their number.
    """

    def __init__(
        self,
        split: Any,
        settings: TrainingSettings,
        crop_frames: tuple[int, int],
        mask_id: int,
        *,
        process: int = 0,
        processes: int = 1,
    ) -> None:
        self.settings, self.mask_id = settings, mask_id
        self.process, self.processes = process, processes
        self.longest, shortest = crop_frames
        self.lengths = np.minimum(row_lengths(split), self.longest)
        n_passes = settings.steps * settings.gradient_accumulation
        sizes = np.full(n_passes, settings.batch_size * processes)
        self.frames = np.full(n_passes, self.longest)
        if settings.crop_seconds_min:
            wanted = range(shortest, self.longest + 1)
            kinds = np.array(sorted({self._bucket(n) for n in wanted}))
            draw = np.random.default_rng((settings.seed, 2))
            self.frames = kinds[draw.integers(0, len(kinds), n_passes)]
            if settings.equal_tokens:
                sizes = sizes * self.longest // self.frames // processes * processes
        self.first = np.concatenate([[0], np.cumsum(sizes)])
        self.excerpts = CropDataset(
            split, self.longest, n_items=int(self.first[-1]), seed=settings.seed
        )
        utterances = np.arange(len(self.lengths))
        self.rows: Sequence[Sequence[int]] | np.ndarray = utterances[:, None]
        if settings.packing:
            self.rows = pack(self.lengths, self.longest)
        self._epoch, self._order = -1, utterances

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, j: int) -> TrainingBatch:
        s, frames = self.settings, int(self.frames[j])
        rows = range(self.first[j], self.first[j + 1])
        found = [self._members(i) for i in rows]
        lengths = torch.tensor([int(np.minimum(self.lengths[m], frames).sum()) for m in found])
        n_frames = int(lengths.max())
        if s.crop_seconds_min:
            n_frames = self._bucket(n_frames)
        generator = torch.Generator().manual_seed(
            step_seed(s.seed, *divmod(j, s.gradient_accumulation), 0)
        )
        part = len(rows) // self.processes
        mine = slice(self.process * part, (self.process + 1) * part)
        # With a variable bitrate, what is hidden for other processes depends on their depth.
        wanted = slice(None) if self.excerpts.variable_depth else mine
        pieces = [
            [self.excerpts.excerpt(int(m), i, frames) for m in members]
            for i, members in zip(rows[wanted], found[wanted], strict=True)
        ]
        live = None
        if self.excerpts.variable_depth:
            live = live_levels(collate([_joined(row) for row in pieces], n_frames).codes)
            pieces = pieces[mine]
        batch = collate([_joined(row) for row in pieces], n_frames)
        n_levels = batch.codes.shape[1]
        level, target = draw_mask(lengths, n_levels, n_frames, generator, live)
        hidden = torch.rand(len(rows), generator=generator) < s.conditioning_dropout
        mask = apply_mask(batch.codes, level[mine], target[mine], self.mask_id)
        if self.processes > 1:
            mask.divisor = target.sum() / self.processes
        each = np.concatenate([[e.codes.shape[-1] for e in row] for row in pieces])
        return TrainingBatch(
            codes=batch.codes,
            conditioning=batch.conditioning,
            lengths=batch.lengths,
            padded=batch.padded,
            documents=_documents(pieces, n_frames) if s.packing else None,
            mask=mask,
            hidden=hidden[mine],
            counts=Counts(int(each.sum()), int((each**2).sum()), int(target[mine].sum())),
        )

    def loader(self, first: int, pin_memory: bool) -> DataLoader:
        """Make a loader of the batches from pass `first` on."""
        workers = self.settings.workers
        return DataLoader(
            Subset(self, range(first, len(self))),
            batch_size=None,
            num_workers=workers,
            prefetch_factor=4 if workers else None,
            pin_memory=pin_memory,
            worker_init_fn=leave_interrupts,
            generator=torch.Generator(),  # the global one belongs to the model's dropout
        )

    def _bucket(self, frames: int) -> int:
        """Round a length up to the next one that batches may have."""
        return min(-(-frames // FRAME_BUCKET) * FRAME_BUCKET, self.longest)

    def _members(self, i: int) -> np.ndarray:
        """Utterances in row i, counted over all batches."""
        if not self.settings.packing and not self.settings.crop_seconds_min:
            return np.array([self.excerpts.utterance(i)])
        epoch, position = divmod(i, len(self.rows))
        if epoch != self._epoch:
            self._epoch, self._order = epoch, self._shuffled(epoch)
        return np.asarray(self.rows[self._order[position]])

    def _shuffled(self, epoch: int) -> np.ndarray:
        """Order of an epoch's rows. With varying crops a batch gets rows of similar lengths."""
        n, draw = len(self.rows), np.random.default_rng((self.settings.seed, epoch, 0))
        order = draw.permutation(n)
        if not self.settings.crop_seconds_min:
            return order
        by_length = order[np.argsort(self.lengths[order], kind="stable")]
        begin = epoch * n
        low, high = np.searchsorted(self.first, [begin, begin + n], side="right")
        edges = np.unique(np.concatenate([[0], self.first[low:high] - begin, [n]]))
        taken = 0
        for batch in draw.permutation(len(edges) - 1):
            size = edges[batch + 1] - edges[batch]
            order[edges[batch] : edges[batch + 1]] = by_length[taken : taken + size]
            taken += size
        return order


def pack(lengths: np.ndarray, capacity: int) -> list[list[int]]:
    """Pack items into rows by best fit, the longest item first.

    Args:
        lengths: frames of each item, at most `capacity`.
        capacity: frames of a row.
    Returns:
        the items of each row.
    """
    rows: list[list[int]] = []
    room: list[tuple[int, int]] = []  # (free frames, row), sorted
    for item in np.argsort(-lengths, kind="stable").tolist():
        length = int(lengths[item])
        place = bisect.bisect_left(room, (length, -1))
        if place < len(room):
            free, row = room.pop(place)
        else:
            free, row = capacity, len(rows)
            rows.append([])
        rows[row].append(item)
        if free > length:
            bisect.insort(room, (free - length, row))
    return rows


def _joined(row: Sequence[Excerpt]) -> Excerpt:
    if len(row) == 1:
        return row[0]
    conditioning = [e.conditioning for e in row if e.conditioning is not None]
    codes = torch.cat([e.codes for e in row], -1)
    return Excerpt(codes, torch.cat(conditioning, -1) if conditioning else None)


def _documents(pieces: Sequence[Sequence[Excerpt]], n_frames: int) -> Tensor:
    """Make `TokenBatch.documents`, int64 [B, T]."""
    documents = torch.full((len(pieces), n_frames), -1)
    for line, row in zip(documents, pieces, strict=True):
        lengths = torch.tensor([e.codes.shape[-1] for e in row])
        line[: lengths.sum()] = torch.repeat_interleave(lengths)
    return documents
