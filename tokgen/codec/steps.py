"""Run causal networks over a sequence that arrives in pieces, on a fixed grid of chunks or frames.

Every frame is computed by the same operations on tensors of the same shapes, at the same place in
them, however the sequence is cut: whole files and streams of any blocks are equal to the bit, on
any machine. A chunk of `Steps` that has not arrived completely is filled with zeros, and computed
again when more of it is there. `Frames` computes every frame once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.windows import Tail

__all__ = ["ROWS", "Frames", "Steps"]

ROWS = 16  # frames per chunk


class Steps:
    """A stage that runs a causal network chunk by chunk.

    Args:
        run: (chunk [..., before + ROWS * hop_in + after], state of the chunk before or None, index
            of its first frame, frames that exist) -> (outputs [..., ROWS * hop_out], state). Frames
            that do not exist are zeros, and must not change the outputs of those before them.
        hop_in, hop_out: inputs and outputs per frame.
        before, after: inputs that a frame needs around its own; zeros at the ends.
        delay: outputs that come before those of the sequence, and are dropped.
        memory: frames before a frame that its outputs depend on; None if they depend on all.
    """

    def __init__(
        self,
        run: Callable[[Tensor, Any, int, int], tuple[Tensor, Any]],
        *,
        hop_in: int = 1,
        hop_out: int = 1,
        before: int = 0,
        after: int = 0,
        delay: int = 0,
        memory: int | None = None,
    ) -> None:
        self.run, self.hop_in, self.hop_out = run, hop_in, hop_out
        self.before, self.after, self.delay, self.memory = before, after, delay, memory
        self._tail, self._n_in = Tail(), 0
        self._state: Any = None
        self._first = 0  # frame that begins the chunk in work
        self._done = 0  # outputs that were made, with the delay

    def push(self, x: Tensor) -> Iterator[Tensor]:
        if not self._tail.end:
            self._tail.add(F.pad(x[..., :0], (self.before, 0)))
        self._tail.add(x)
        self._n_in += x.shape[-1]
        yield from self._run(self._known(self._n_in))

    def finish(self) -> Iterator[Tensor]:
        if not self._n_in:
            return
        n_frames = -(-self._n_in // self.hop_in)
        end = n_frames * self.hop_out + self.delay
        for piece in self._run(-(-end // self.hop_out), exist=n_frames):
            over = max(0, self._done - end)
            yield piece[..., : piece.shape[-1] - over]

    def ready(self, n: int) -> int:
        return max(0, self._known(n) * self.hop_out - self.delay)

    def skip(self, n: int) -> tuple[int, int]:
        """See `tokgen.codec.windows.Skips`. Nothing is skipped of networks that forget nothing."""
        if self.memory is None or self.before:
            return 0, 0
        first = max(0, (n + self.delay) // self.hop_out - self.memory) // ROWS * ROWS
        self._first, self._done, self._n_in = first, first * self.hop_out, first * self.hop_in
        self._tail.begin = self._tail.end = self._n_in
        return self._n_in, max(0, self._done - self.delay)

    def _known(self, n: int) -> int:
        """Return the number of frames for which `n` inputs are enough."""
        return max(0, (n - self.after) // self.hop_in)

    def _run(self, known: int, exist: int | None = None) -> Iterator[Tensor]:
        """Yield the new outputs up to frame `known`."""
        while self._done < known * self.hop_out:
            low, end = self._first * self.hop_in, self._tail.end
            size = self.before + ROWS * self.hop_in + self.after
            chunk = self._tail.cut(min(low, end), min(low + size, end))
            chunk = F.pad(chunk, (0, size - chunk.shape[-1]))
            n_frames = known if exist is None else exist
            out, state = self.run(chunk, self._state, self._first, n_frames)
            origin = self._first * self.hop_out
            start, self._done = self._done, min(known, self._first + ROWS) * self.hop_out
            if self._done == origin + ROWS * self.hop_out:
                self._state, self._first = state, self._first + ROWS
                self._tail.drop(min(self._first * self.hop_in, end))
            start = max(start, min(self.delay, self._done))
            yield out[..., start - origin : self._done - origin]


class Frames:
    """A stage that runs a causal network frame by frame, each frame once.

    Args:
        run: (inputs [..., hop_in], state of the frame before or None) -> (outputs [..., hop_out],
            state). The last frame of a sequence may be shorter.
        hop_in, hop_out: inputs and outputs per frame.
        first: frames that run together at the start.
    """

    def __init__(
        self,
        run: Callable[[Tensor, Any], tuple[Tensor, Any]],
        *,
        hop_in: int = 1,
        hop_out: int = 1,
        first: int = 1,
    ) -> None:
        self.run, self.hop_in, self.hop_out, self.first = run, hop_in, hop_out, first
        self._tail, self._done, self._size = Tail(), 0, first * hop_in
        self._state: Any = None

    def push(self, x: Tensor) -> Iterator[Tensor]:
        self._tail.add(x)
        while self._done + self._size <= self._tail.end:
            yield self._run(self._done + self._size)
            self._size = self.hop_in

    def finish(self) -> Iterator[Tensor]:
        if self._done < self._tail.end:
            yield self._run(self._tail.end)

    def ready(self, n: int) -> int:
        known = n // self.hop_in
        return known * self.hop_out if known >= self.first else 0

    def _run(self, stop: int) -> Tensor:
        out, self._state = self.run(self._tail.cut(self._done, stop), self._state)
        self._tail.drop(stop)
        self._done = stop
        return out
