"""Random excerpts of a token dataset, padded to batches."""

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

from tokgen.modelling.depths import join_depth
from tokgen.tokens.columns import conditioning_column, filled, variable_levels

__all__ = ["CropDataset", "Excerpt", "TokenBatch", "collate", "map_tensors", "row_lengths"]

Content = TypeVar("Content")


def map_tensors(content: Content, change: Callable[[Tensor], Tensor]) -> Content:
    """Copy a dataclass, with `change` applied to its tensors and to those of nested dataclasses."""
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
    """A batch of excerpts, padded on the right.

    Attributes:
        codes: int64 [B, K, T], 0 after each item's end. With a variable bitrate, [B, K + 1, T], as
            `tokgen.modelling.depths` describes them.
        conditioning: float32 [B, C, T], 0 after the end; None without conditioning.
        lengths: int64 [B], frames of each item.
        padded: some item is shorter than T. Attention is faster without a mask.
        documents: int64 [B, T], the excerpt that each frame belongs to, -1 after the end; None if
            each row has one excerpt.
    """

    codes: Tensor
    conditioning: Tensor | None
    lengths: Tensor
    padded: bool = True
    documents: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Self:
        """Copy the batch to a device."""
        return map_tensors(self, lambda t: t.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> Self:
        """Copy the batch to page-locked memory, for asynchronous copies to a GPU."""
        return map_tensors(self, Tensor.pin_memory)


@dataclass
class Excerpt:
    """Part of an utterance: codes int64 [K, T] and conditioning float32 [C, T] or None.

    With a variable bitrate, the codes are [K + 1, T] with the depth first.
    """

    codes: Tensor
    conditioning: Tensor | None


class CropDataset(Dataset):
    """Random excerpts of a token dataset.

    Each epoch has one excerpt of every utterance. Item i depends on (seed, i) alone, so a resumed
    run gets the same items. Only the excerpt is read from the memory-mapped file.

    Args:
        dataset: split of a token dataset (`tokgen.tokens.dataset.load_tokens`).
        crop_frames: frames of an excerpt; shorter utterances are returned whole.
        n_items: length of this dataset.
        seed: of the order and the positions.
    Attributes:
        variable_depth: the dataset has a variable bitrate, so the depth comes before the codes.
    """

    def __init__(self, dataset: Any, crop_frames: int, *, n_items: int, seed: int = 0) -> None:
        if len(dataset) == 0:
            raise ValueError("the token dataset has no rows to train on")
        if crop_frames < 1:
            raise ValueError(f"crop_frames = {crop_frames}: must be at least 1")
        self.conditioning = conditioning_column(dataset)
        self._most = variable_levels(dataset)
        self.variable_depth = self._most is not None
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
        """Row of item i."""
        epoch, position = divmod(i, len(self.dataset))
        if epoch != self._epoch:
            order = np.random.default_rng((self.seed, epoch, 0)).permutation(len(self.dataset))
            self._epoch, self._order = epoch, order
        return int(self._order[position])

    def excerpt(self, utterance: int, i: int, frames: int) -> Excerpt:
        """At most `frames` frames of a row, at the position drawn for item i."""
        row = self.dataset[utterance]
        cells = _cells(row, "codes")
        spare = max(0, len(cells) - frames)
        start = int(np.random.default_rng((self.seed, i, 1)).integers(0, spare + 1))
        if self._most is None:
            codes = torch.from_numpy(_cut(row, "codes", start, frames).astype(np.int64)).T
        else:
            codes = join_depth(*filled(cells.slice(start, frames), self._most))
        conditioning = None
        if self.conditioning:
            found = _cut(row, self.conditioning, start, frames).astype(np.float32)
            conditioning = torch.from_numpy(found).T
        return Excerpt(codes, conditioning)


def _cells(row: pa.Table, column: str) -> pa.Array:
    """Frames of a one-row table, without a copy."""
    return row.column(column).chunk(0).flatten()


def _cut(row: pa.Table, column: str, start: int, frames: int) -> np.ndarray:
    """At most `frames` frames from `start` as [t, values], without a copy."""
    part = _cells(row, column).slice(start, frames)
    return part.flatten().to_numpy().reshape(-1, part.type.list_size)


def row_lengths(dataset: Any) -> np.ndarray:
    """Number of frames of each row, int64 [rows]."""
    only = dataset.with_format("arrow", columns=["codes"])
    parts = [pc.list_value_length(part["codes"]) for part in only.iter(batch_size=10_000)]
    return np.concatenate([part.to_numpy() for part in parts]).astype(np.int64)


def collate(items: Sequence[Excerpt], frames: int | None = None) -> TokenBatch:
    """Stack excerpts, padded to the longest or to `frames`."""
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
