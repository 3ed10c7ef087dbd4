"""Token dataset -> training batches: random excerpts that depend on (seed, item) alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Self, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.data import Dataset

from tokgen.tokens.dataset import conditioning_column

Content = TypeVar("Content")


def map_tensors(content: Content, change: Callable[[Tensor], Tensor]) -> Content:
    """A copy of a dataclass with `change` made to its tensors, in nested ones as well."""
    changed: dict[str, Any] = {}
    for field in fields(content):  # type: ignore[arg-type]
        value = getattr(content, field.name)
        if isinstance(value, Tensor):
            changed[field.name] = change(value)
        elif is_dataclass(value):
            changed[field.name] = map_tensors(value, change)
    return replace(content, **changed)  # type: ignore[type-var]


@dataclass
class TokenBatch:
    """Excerpts, padded on the right.

    Attributes:
        codes: int64 [B, K, T], 0 past each item's end.
        conditioning: float32 [B, C, T], 0 past the end, or None.
        lengths: int64 [B], frames.
        padded: some item is shorter than T. Where none is, attention needs no mask, and only
            without one it is at its fastest.
        documents: int64 [B, T], where rows hold several excerpts: which one a frame is of, -1 past
            the end; else None.
    """

    codes: Tensor
    conditioning: Tensor | None
    lengths: Tensor
    padded: bool = True
    documents: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """The batch on `device`."""
        return map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """The batch in page-locked memory, for copies that overlap."""
        return map_tensors(self, Tensor.pin_memory)


@dataclass
class Excerpt:
    """codes int64 [K, T] and conditioning float32 [C, T] or None."""

    codes: Tensor
    conditioning: Tensor | None


class CropDataset(Dataset):
    """`n_items` random excerpts of a token dataset.

    Item i is an excerpt of utterance perm_e[i mod L] with e = i // L and L utterances: every
    utterance once an epoch. It depends on (seed, i) alone, so a resumed run continues at any
    item and sees what it would have seen. Only the excerpt is read from the memory-mapped file.

    Args:
        dataset: a split of a token dataset (`tokgen.tokens.tokenizing.load_tokens`).
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
        self.dataset = dataset.with_format("arrow", columns=columns)
        self.crop_frames, self.n_items, self.seed = crop_frames, n_items, seed
        self._epoch, self._order = -1, np.empty(0, dtype=np.int64)

    def __len__(self) -> int:
        return self.n_items

    def __getitem__(self, i: int) -> Excerpt:
        if not 0 <= i < self.n_items:
            raise IndexError(f"item {i} of {self.n_items}")
        return self.excerpt(self.utterance(i), i, self.crop_frames)

    def utterance(self, i: int) -> int:
        """Of which row item i is."""
        epoch, position = divmod(i, len(self.dataset))
        if epoch != self._epoch:
            order = np.random.default_rng((self.seed, epoch, 0)).permutation(len(self.dataset))
            self._epoch, self._order = epoch, order
        return int(self._order[position])

    def excerpt(self, utterance: int, i: int, frames: int) -> Excerpt:
        """At most `frames` frames of a row, from where item i begins."""
        row = self.dataset[utterance]
        spare = max(0, len(_cells(row, "codes")) - frames)
        start = int(np.random.default_rng((self.seed, i, 1)).integers(0, spare + 1))
        codes = _cut(row, "codes", start, frames).astype(np.int64)
        conditioning = None
        if self.conditioning:
            found = _cut(row, self.conditioning, start, frames).astype(np.float32)
            conditioning = torch.from_numpy(found).T
        return Excerpt(torch.from_numpy(codes).T, conditioning)


def _cells(row: pa.Table, column: str) -> pa.Array:
    """The frames of a table of one row; not copied."""
    return row.column(column).chunk(0).flatten()


def _cut(row: pa.Table, column: str, start: int, frames: int) -> np.ndarray:
    """[t, values], t <= frames of a column's frames from `start`; not copied."""
    part = _cells(row, column).slice(start, frames)
    return part.flatten().to_numpy().reshape(-1, part.type.list_size)


def row_lengths(dataset: Any) -> np.ndarray:
    """Frames of every row of a token dataset, int64 [L]."""
    only = dataset.with_format("arrow", columns=["codes"])
    parts = [pc.list_value_length(part["codes"]) for part in only.iter(batch_size=10_000)]
    return np.concatenate([part.to_numpy() for part in parts]).astype(np.int64)


def collate(items: Sequence[Excerpt], frames: int | None = None) -> TokenBatch:
    """Pad excerpts to the longest, or to `frames`, and stack them."""
    lengths = torch.tensor([e.codes.shape[-1] for e in items])
    longest = int(lengths.max()) if frames is None else frames

    def stack(tensors: Sequence[Tensor]) -> Tensor:
        return torch.stack([F.pad(t, (0, longest - t.shape[-1])) for t in tensors])

    conditioning = [e.conditioning for e in items if e.conditioning is not None]
    if conditioning and len(conditioning) != len(items):
        raise ValueError("some excerpts have conditioning and others do not")
    return TokenBatch(
        stack([e.codes for e in items]),
        stack(conditioning) if conditioning else None,
        lengths,
        padded=int(lengths.min()) < longest,
    )
