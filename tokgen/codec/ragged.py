"""Codes of levels that have different frame rates, as codes [B, K, T].

The finer levels of some codecs have several frames in each frame of the coarsest level: SNAC at
24 kHz has 1, 2 and 4. `RaggedLayout` makes a level of each of them, so that everything else sees
codes with one frame rate, that of the coarsest level:

    layout = RaggedLayout((4, 2, 1))        # what each level's rate is divided by
    layout.n_codebooks                      # 7 = 1 + 2 + 4
    codes = layout.join([a, b, c])          # [B, T], [B, 2 T], [B, 4 T] -> [B, 7, T]
    a, b, c = layout.split(codes)           # equal to those above

    level of the codes    0    1     2     3     4     5     6
    frame t               a_t  b_2t  b_2t+1  c_4t  c_4t+1  c_4t+2  c_4t+3

The order is coarse first, and in time within a level of the codec. So the first 1, 3 or 7 levels
of the codes are the first 1, 2 or 3 levels of the codec.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

__all__ = ["MISSING", "RaggedLayout"]

MISSING = -1  # stands for codes of levels that were left out

_Value = TypeVar("_Value")


@dataclass(frozen=True)
class RaggedLayout:
    """The layout of codes whose levels have different frame rates.

    Attributes:
        strides: of each level, frames of the finest rate in one of its frames; coarse first.
    """

    strides: tuple[int, ...]

    def __post_init__(self) -> None:
        strides = self.strides
        if not strides or not all(type(s) is int and s > 0 for s in strides):
            raise ValueError(f"strides = {list(strides)}: expected integers of at least 1")
        if list(strides) != sorted(strides, reverse=True) or any(strides[0] % s for s in strides):
            raise ValueError(
                f"strides = {list(strides)}: expected the coarsest level first, with a stride that "
                "every other stride divides"
            )

    @property
    def repeats(self) -> tuple[int, ...]:
        """Frames of each level in one frame of the coarsest level."""
        return tuple(self.strides[0] // stride for stride in self.strides)

    @property
    def n_codebooks(self) -> int:
        """Levels K of the joined codes."""
        return sum(self.repeats)

    def spread(self, values: Sequence[_Value]) -> list[_Value]:
        """Return a value of each of the codec's levels for each of the K levels."""
        return [v for v, n in zip(values, self.repeats, strict=True) for _ in range(n)]

    def join(self, levels: Sequence[Tensor]) -> Tensor:
        """Return the codes [B, K, T] of levels [B, repeats[i] * T], coarse first.

        Raises:
            ValueError: another number of levels, or lengths that do not belong together.
        """
        if len(levels) != len(self.strides):
            raise ValueError(f"{len(levels)} levels: this layout has {len(self.strides)}")
        lengths, n_frames = [level.shape[-1] for level in levels], levels[0].shape[-1]
        wanted = [n * n_frames for n in self.repeats]
        if lengths != wanted:
            raise ValueError(f"levels of {lengths} frames: expected {wanted}")
        rows = [
            level.unflatten(-1, (n_frames, n)).mT
            for level, n in zip(levels, self.repeats, strict=True)
        ]
        return torch.cat(rows, dim=-2)

    def split(self, codes: Tensor) -> list[Tensor]:
        """Return the levels [B, repeats[i] * T] of codes [B, k, T], coarse first.

        If k < K, the codes that were left out are `MISSING`.

        Raises:
            ValueError: more than K levels, or none.
        """
        k, most = codes.shape[-2], self.n_codebooks
        if not 1 <= k <= most:
            raise ValueError(f"codes of {k} levels: this layout has 1..{most}")
        missing = codes.new_full((*codes.shape[:-2], most - k, codes.shape[-1]), MISSING)
        rows = torch.cat([codes, missing], dim=-2).split(self.repeats, dim=-2)
        return [row.mT.flatten(-2) for row in rows]
