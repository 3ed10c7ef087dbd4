"""The codes of an utterance in a layout, and back.

| layout | array | values |
|---|---|---|
| flat | [T * K] | codes, frame by frame, coarse level first |
| offsets | [T * K] | the same, level k raised by k * codebook_size |
| delay | [K, T + K - 1] | codes, level k is k steps late; codebook_size where there is none |

If frames differ in depth, `offsets` has the codes up to the depth of each frame: a value below
codebook_size begins a frame. The other layouts cannot tell frames apart then.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from tokgen.tokens.layouts import (
    add_offsets,
    delay,
    flatten,
    remove_offsets,
    undelay,
    unflatten,
)
from tokgen.tokens.provenance import Provenance

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """A layout of the codes of one codec.

    Attributes:
        name: one of `tokgen.tokens.export.settings.LAYOUTS`.
        n_codebooks: K.
        codebook_size: entries per level.
        variable: frames differ in depth.
    Raises:
        ValueError: frames differ in depth, and the layout cannot hold that.
    """

    name: str
    n_codebooks: int
    codebook_size: int
    variable: bool = False

    def __post_init__(self) -> None:
        if self.variable and self.name != "offsets":
            raise ValueError(
                f"layout {self.name} cannot hold frames that differ in depth: use layout offsets"
            )

    @classmethod
    def of(cls, name: str, provenance: Provenance) -> Layout:
        """Return the layout for the rows of a dataset."""
        sizes = provenance.n_codebooks, provenance.codebook_size
        return cls(name, *sizes, provenance.rate is not None)

    @property
    def fill(self) -> int | None:
        """The value where `delay` has no code; None for other layouts."""
        return self.codebook_size if self.name == "delay" else None

    @property
    def vocabulary_size(self) -> int:
        """Number of different values, those that `fill` needs included."""
        if self.name == "offsets":
            return self.n_codebooks * self.codebook_size
        return self.codebook_size + (self.name == "delay")

    @property
    def dtype(self) -> np.dtype:
        """Type of the values in files."""
        return np.dtype("<u2" if self.vocabulary_size <= 1 << 16 else "<u4")

    def lay_out(self, codes: Tensor, depth: Tensor | None = None) -> np.ndarray:
        """Return the values of codes [K, T], with the depth [T] if frames differ in it."""
        if self.name == "delay":
            values = delay(codes, self.codebook_size)
        elif self.name == "offsets":
            values = flatten(add_offsets(codes, self.codebook_size))
            if depth is not None:
                live = torch.arange(len(codes))[:, None] < depth
                values = values[flatten(live.long()).bool()]
        else:
            values = flatten(codes)
        return values.numpy().astype(self.dtype)

    def codes(self, values: np.ndarray) -> list[list[int]]:
        """Return the codes of each frame, as rows of datasets hold them.

        Raises:
            ValueError: the values are not those of this layout.
        """
        tokens = torch.from_numpy(values.astype(np.int64))
        wanted = 2 if self.name == "delay" else 1
        if tokens.ndim != wanted or not tokens.numel():
            raise ValueError(
                f"tokens of shape {tuple(tokens.shape)}: layout {self.name} has "
                f"{'[K, T + K - 1]' if wanted == 2 else '[T * K]'}"
            )
        if int(tokens.min()) < 0 or int(tokens.max()) >= self.vocabulary_size:
            raise ValueError(
                f"tokens from {int(tokens.min())} to {int(tokens.max())}: layout {self.name} has "
                f"0..{self.vocabulary_size - 1}"
            )
        if self.variable:
            return self._frames(tokens)
        if self.name == "delay":
            if len(tokens) != self.n_codebooks:
                raise ValueError(f"{len(tokens)} levels, expected {self.n_codebooks}")
            return undelay(tokens, self.codebook_size).T.tolist()
        found = unflatten(tokens, self.n_codebooks)
        if self.name == "offsets":
            found = remove_offsets(found, self.codebook_size)
        return found.T.tolist()

    def _frames(self, tokens: Tensor) -> list[list[int]]:
        """Split values of frames of unequal depth."""
        levels = tokens // self.codebook_size
        begins = (levels == 0).nonzero()[:, 0].tolist()
        if not begins or begins[0] != 0:
            raise ValueError("the tokens do not begin with a code of level 0")
        ends = [*begins[1:], len(tokens)]
        frames = []
        for start, end in zip(begins, ends, strict=True):
            if levels[start:end].tolist() != list(range(end - start)):
                raise ValueError(f"levels {levels[start:end].tolist()} in one frame, out of order")
            frames.append((tokens[start:end] % self.codebook_size).tolist())
        return frames
