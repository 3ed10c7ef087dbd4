"""Chains of stages that encode and decode one utterance block by block.

`Codec.block_encoder` and `Codec.block_decoder` create them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from tokgen.codec.spec import Encoded, Side
from tokgen.codec.windows import Stage, finish_all, push_through


class BlockEncoder:
    """Encodes audio block by block.

    Args:
        stages: chain from waveform [1, C, n] to codes [1, K, t].
        side: lists to which the stages append side information [1, s], by name.
    """

    def __init__(self, *stages: Stage, side: dict[str, list[Tensor]] | None = None) -> None:
        self.stages, self._side = stages, side or {}

    def push(self, waveform: Tensor) -> Iterator[Encoded]:
        """Add checked audio on the codec's device and yield the codes that are now complete."""
        for codes in push_through(self.stages, waveform):
            yield Encoded(codes, self._new_side())

    def finish(self) -> Iterator[Encoded]:
        """Yield the remaining codes at the end of the audio."""
        for codes in finish_all(self.stages):
            yield Encoded(codes, self._new_side())

    def ready(self, n_samples: int) -> int:
        """Return the number of frames that `push` has yielded after `n_samples` samples."""
        return _ready(self.stages, n_samples)

    def _new_side(self) -> Side:
        side = {name: torch.cat(values, dim=-1) for name, values in self._side.items()}
        for values in self._side.values():
            values.clear()
        return side


class BlockDecoder:
    """Decodes codes block by block.

    Args:
        stages: chain from codes [1, K, t] to waveform [1, C, n].
        take_side: called with the side information of each block before its codes are pushed.
    """

    def __init__(self, *stages: Stage, take_side: Callable[[Side], None] | None = None) -> None:
        self.stages, self._take_side = stages, take_side

    def push(self, encoded: Encoded) -> Iterator[Tensor]:
        """Add checked codes on the codec's device and yield the audio that is now complete."""
        if self._take_side is not None:
            self._take_side(encoded.side)
        yield from push_through(self.stages, encoded.codes)

    def finish(self) -> Iterator[Tensor]:
        """Yield the remaining audio at the end of the codes."""
        yield from finish_all(self.stages)

    def ready(self, n_frames: int) -> int:
        """Return the number of samples that `push` has yielded after `n_frames` frames."""
        return _ready(self.stages, n_frames)


def _ready(stages: Iterable[Stage], n: int) -> int:
    for stage in stages:
        n = stage.ready(n)
    return n
