"""Token dataset -> training batches: random excerpts that depend on (seed, item) alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from tokgen.conditioning import CONDITIONINGS
from tokgen.token_dataset import conditioning_column


@dataclass
class TokenBatch:
    """Excerpts, padded on the right.

    Attributes:
        codes: int64 [B, K, T], 0 past each item's end.
        conditioning: float32 [B, C, T], 0 past the end, or None.
        lengths: int64 [B], frames.
    """

    codes: Tensor
    conditioning: Tensor | None
    lengths: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> TokenBatch:
        """The batch on `device`."""

        def move(tensor: Tensor) -> Tensor:
            return tensor.to(device, non_blocking=non_blocking)

        conditioning = None if self.conditioning is None else move(self.conditioning)
        return TokenBatch(move(self.codes), conditioning, move(self.lengths))

    def pin_memory(self) -> TokenBatch:
        """The batch in page-locked memory, for copies that overlap."""
        conditioning = None if self.conditioning is None else self.conditioning.pin_memory()
        return TokenBatch(self.codes.pin_memory(), conditioning, self.lengths.pin_memory())


@dataclass
class Excerpt:
    """codes int64 [K, T] and conditioning float32 [C, T] or None."""

    codes: Tensor
    conditioning: Tensor | None


class CropDataset(Dataset):
    """`n_items` random excerpts of a token dataset.

    Item i is an excerpt of utterance perm_e[i mod L] with e = i // L and L utterances: every
    utterance once an epoch. It depends on (seed, i) alone, so a resumed run continues at any
    item and sees what it would have seen.

    Args:
        dataset: a split of a token dataset (`tokgen.tokenizing.load_tokens`).
        crop_frames: T of an excerpt; shorter utterances come whole.
        n_items: length of this dataset.
        seed: of permutations and positions.
    """

    def __init__(self, dataset: Any, crop_frames: int, *, n_items: int, seed: int = 0) -> None:
        if len(dataset) == 0:
            raise ValueError("the token dataset has no rows: nothing to train on")
        if crop_frames < 1:
            raise ValueError(f"crop_frames = {crop_frames}: must be at least 1")
        self.conditioning = conditioning_column(dataset)
        columns = ["codes", *([self.conditioning] if self.conditioning else [])]
        self.dataset = dataset.with_format("numpy", columns=columns)
        self.crop_frames, self.n_items, self.seed = crop_frames, n_items, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.n_items

    def __getitem__(self, i: int) -> Excerpt:
        if not 0 <= i < self.n_items:
            raise IndexError(f"item {i} of {self.n_items}")
        epoch, position = divmod(i, len(self.dataset))
        if epoch != self._epoch:
            order = np.random.default_rng((self.seed, epoch, 0)).permutation(len(self.dataset))
            self._epoch, self._order = epoch, order
        row = self.dataset[int(self._order[position])]
        n_frames = len(row["codes"])
        spare = max(0, n_frames - self.crop_frames)
        start = int(np.random.default_rng((self.seed, i, 1)).integers(0, spare + 1))
        window = slice(start, start + self.crop_frames)
        codes = torch.from_numpy(row["codes"][window].astype(np.int64)).T
        conditioning = None
        if self.conditioning:
            conditioning = torch.from_numpy(row[self.conditioning][window].astype(np.float32)).T
        return Excerpt(codes, conditioning)


def collate(items: Sequence[Excerpt]) -> TokenBatch:
    """Pad excerpts to the longest and stack them."""
    lengths = torch.tensor([e.codes.shape[-1] for e in items])
    longest = int(lengths.max())

    def stack(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack([F.pad(t, (0, longest - t.shape[-1])) for t in tensors])

    conditioning = [e.conditioning for e in items if e.conditioning is not None]
    if conditioning and len(conditioning) != len(items):
        raise ValueError("some excerpts have conditioning and others do not")
    return TokenBatch(
        stack([e.codes for e in items]), stack(conditioning) if conditioning else None, lengths
    )


def compute_statistics(dataset: Any) -> tuple[list[float], list[float]]:
    """Mean and standard deviation [C] of each conditioning coefficient over all frames."""
    column = conditioning_column(dataset)
    if column is None:
        raise ValueError(
            "the token dataset has no conditioning: tokenize it with one of "
            f"{', '.join(CONDITIONINGS)}"
        )
    count, total, squares = 0, np.zeros(()), np.zeros(())
    for row in dataset.with_format("numpy", columns=[column]):
        frames = row[column].astype(np.float64)
        count += len(frames)
        total, squares = total + frames.sum(0), squares + (frames**2).sum(0)
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 1e-8))
    return mean.tolist(), deviation.tolist()
