"""Run networks on separate chunks of a sequence that arrives in pieces, and join what they make."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.windows import Tail

__all__ = ["Chunks", "OverlapAdd"]


class Chunks:
    """A stage that runs a network on separate chunks; the last one is padded with zeros.

    Args:
        run: chunk [..., length] -> [..., n_frames].
        length, stride: inputs per chunk, and from the start of one chunk to the next.
        n_frames: outputs per chunk.
    """

    def __init__(
        self, run: Callable[[Tensor], Tensor], length: int, stride: int, n_frames: int
    ) -> None:
        self.run, self.length, self.stride, self.n_frames = run, length, stride, n_frames
        self._tail, self._done = Tail(), 0

    def push(self, x: Tensor) -> Iterator[Tensor]:
        self._tail.add(x)
        while self._start + self.length <= self._tail.end:
            yield self._chunk()

    def finish(self) -> Iterator[Tensor]:
        while self._start < self._tail.end:
            yield self._chunk()

    def ready(self, n: int) -> int:
        return max(0, (n - self.length) // self.stride + 1) * self.n_frames

    def skip(self, n: int) -> tuple[int, int]:
        """See `tokgen.codec.windows.Skips`."""
        self._done = n // self.n_frames
        self._tail.begin = self._tail.end = self._start
        return self._start, self._done * self.n_frames

    @property
    def _start(self) -> int:
        return self._done * self.stride

    def _chunk(self) -> Tensor:
        chunk = self._tail.cut(self._start, self._start + self.length)
        self._done += 1
        self._tail.drop(min(self._start, self._tail.end))
        return self.run(F.pad(chunk, (0, self.length - chunk.shape[-1])))


class OverlapAdd:
    """The stage that joins overlapping chunks [B, C, length] with linear fades."""

    def __init__(self, length: int, stride: int) -> None:
        self.length, self.stride = length, stride
        rise = torch.arange(1, length + 1) / (length + 1)
        self._weight = torch.minimum(rise, rise.flip(0))
        self._total, self._weights = torch.zeros(0), torch.zeros(0)

    def push(self, x: Tensor) -> Iterator[Tensor]:
        for chunk in x.split(self.length, dim=-1):
            weight = self._weight.to(chunk.device)
            new = self.length - self._weights.shape[-1]
            if new == self.length:
                self._total, self._weights = torch.zeros_like(chunk), torch.zeros_like(weight)
            else:
                self._total = F.pad(self._total, (0, new))
                self._weights = F.pad(self._weights, (0, new))
            self._total = self._total + weight * chunk
            self._weights = self._weights + weight
            yield self._total[..., : self.stride] / self._weights[: self.stride]
            self._total = self._total[..., self.stride :]
            self._weights = self._weights[self.stride :]

    def finish(self) -> Iterator[Tensor]:
        if len(self._weights):
            yield self._total / self._weights

    def ready(self, n: int) -> int:
        return n // self.length * self.stride

    def skip(self, n: int) -> tuple[int, int]:
        """See `tokgen.codec.windows.Skips`. Begins with the first chunk that covers output `n`."""
        first = max(0, n // self.stride - (self.length - 1) // self.stride)
        return first * self.length, first * self.stride
