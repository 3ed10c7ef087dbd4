"""A codec's two directions as chains of stages: `Codec.block_encoder` and `block_decoder`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor

from tokgen.codec.spec import Encoded, Side
from tokgen.codec.windows import Stage, finish_all, push_through


class BlockEncoder:
    """Audio in, codes out; `Codec.block_encoder` makes it.

    Args:
        stages: from waveform [1, C, n] to codes [1, K, t].
        side: lists that the stages append side information [1, s] to, by name.
    """

    def __init__(self, *stages: Stage, side: dict[str, list[Tensor]] | None = None) -> None:
        self.stages, self._side = stages, side or {}

    def push(self, waveform: Tensor) -> Iterator[Encoded]:
        """What is known once `waveform`, checked and on the device, has been added."""
        for codes in push_through(self.stages, waveform):
            yield Encoded(codes, self._new_side())

    def finish(self) -> Iterator[Encoded]:
        """The rest, once the audio has ended."""
        for codes in finish_all(self.stages):
            yield Encoded(codes, self._new_side())

    def ready(self, n_samples: int) -> int:
        """Frames that are given out once so many samples were pushed."""
        return _ready(self.stages, n_samples)

    def _new_side(self) -> Side:
        side = {name: torch.cat(values, dim=-1) for name, values in self._side.items()}
        for values in self._side.values():
            values.clear()
        return side


class BlockDecoder:
    """Codes in, audio out; `Codec.block_decoder` makes it.

    Args:
        stages: from codes [1, K, t] to waveform [1, C, n].
        take_side: gets the side information that comes with the codes, before they do.
    """

    def __init__(self, *stages: Stage, take_side: Callable[[Side], None] | None = None) -> None:
        self.stages, self._take_side = stages, take_side

    def push(self, encoded: Encoded) -> Iterator[Tensor]:
        """What is known once checked codes, on the device, have been added."""
        if self._take_side is not None:
            self._take_side(encoded.side)
        yield from push_through(self.stages, encoded.codes)

    def finish(self) -> Iterator[Tensor]:
        """The rest, once the codes have ended."""
        yield from finish_all(self.stages)

    def ready(self, n_frames: int) -> int:
        """Samples that are given out once so many frames were pushed."""
        return _ready(self.stages, n_frames)


def _ready(stages: Iterable[Stage], n: int) -> int:
    for stage in stages:
        n = stage.ready(n)
    return n
