"""Networks that see finitely far, run over a sequence that comes in pieces.

A stage takes pieces of a sequence [..., n] and gives pieces of what becomes of it:

    for piece in stage.push(x): ...    # what can be known now
    for piece in stage.finish(): ...   # the rest, once the sequence has ended

`Windows` runs a network window by window, each with all that its frames depend on to either
side. Whole files and blocks go through the same windows, so both give the same bits, and memory
holds one window whatever the length.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    pass

# Matrix products and convolutions of few columns round along other paths than those of many, and
# so do oneDNN's where columns are a multiple of a large power of two.
MIN_FRAMES = 65
ODD_BEYOND = 32


class Stage(Protocol):
    """One of a chain: tensors [..., n] in, tensors [..., m] out, any n and m."""

    def push(self, x: Tensor) -> Iterator[Tensor]: ...

    def finish(self) -> Iterator[Tensor]: ...

    def ready(self, n: int) -> int:
        """How much has been given out once `n` were pushed and the end is not known."""
        ...


@dataclass(frozen=True)
class Reach:
    """What a frame depends on beside itself.

    Attributes:
        before, after: frames.
        first: frames that must be known before any is right, where padding mirrors the
            beginning of the sequence.
    """

    before: int
    after: int
    first: int = 1


@dataclass(frozen=True)
class Conv:
    """A convolution's geometry, for `encoder_reach` and `decoder_reach`.

    Attributes:
        left: padding before the sequence; what a transposed one trims there.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    left: int = 0
    transposed: bool = False

    def inputs(self, low: int, high: int) -> tuple[int, int]:
        """The first and last input that outputs low..high depend on."""
        span = self.dilation * (self.kernel - 1)
        if self.transposed:
            return -(-(low + self.left - span) // self.stride), (high + self.left) // self.stride
        return low * self.stride - self.left, high * self.stride - self.left + span


def encoder_reach(layers: Sequence[Conv], mirrored: bool = False) -> Reach:
    """What a frame depends on, in frames of as many samples as the strides multiply to.

    Args:
        mirrored: whether padding repeats the sequence's beginning backwards.
    """
    hop = 1
    for layer in layers:
        hop *= layer.stride
    low, high = _inputs(layers, 0, 0)
    first = _first_needed(layers) // hop + 1 if mirrored else 1
    return Reach(max(0, -(low // hop)), max(0, high // hop), first)


def decoder_reach(layers: Sequence[Conv], mirrored: bool = False) -> Reach:
    """As `encoder_reach`, of the frames that a frame's samples depend on."""
    hop = 1
    for layer in layers:
        hop *= layer.stride
    low, high = _inputs(layers, 0, hop - 1)
    return Reach(max(0, -low), max(0, high), _first_needed(layers) + 1 if mirrored else 1)


def _inputs(layers: Sequence[Conv], low: int, high: int) -> tuple[int, int]:
    for layer in reversed(layers):
        low, high = layer.inputs(low, high)
    return low, high


def _first_needed(layers: Sequence[Conv]) -> int:
    """The last input that padding of any layer, mirrored at the beginning, depends on."""
    padded = [i for i, layer in enumerate(layers) if not layer.transposed and layer.left]
    return max((_inputs(layers[:i], 0, layers[i].left)[1] for i in padded), default=0)


class Windows:
    """A stage that runs a network of finite reach.

    Args:
        run: (window [..., n * hop_in], index of its first frame) -> [..., n * hop_out]; the last
            window of a sequence may end within a frame.
        reach: of the network.
        size: frames given out by a window at most, its context not counted.
        step: frames are given out in multiples of it, as soon as they can be; None is `size`,
            which cuts every sequence alike, however it is pushed.
        hop_in, hop_out: what a frame is long before and after.
        whole: sequences of so many frames at most go through as one window, whatever `size` is.
    """

    def __init__(
        self,
        run: Callable[[Tensor, int], Tensor],
        reach: Reach,
        *,
        size: int,
        step: int | None = None,
        hop_in: int = 1,
        hop_out: int = 1,
        whole: int = 0,
    ) -> None:
        self.whole = whole if step is None else 0
        self.run, self.reach, self.hop_in, self.hop_out = run, reach, hop_in, hop_out
        self.step = size if step is None else step
        self.size = max(1, size // self.step) * self.step
        self._tail, self._done = _Tail(), 0

    def push(self, x: Tensor) -> Iterator[Tensor]:
        self._tail.add(x)
        ready = self.ready(self._tail.end) // self.hop_out
        while self._done < ready:
            stop = min(ready, self._done + self.size)
            yield self._window(stop, max(stop + self.reach.after, self.reach.first))

    def finish(self) -> Iterator[Tensor]:
        end = -(-self._tail.end // self.hop_in)
        if not self._done and end <= self.whole:
            self.size = max(self.size, end)
        while self._done < end:
            stop = min(end, self._done + self.size)
            high = max(stop + self.reach.after, self.reach.first)
            yield self._window(stop, min(high, end), ended=high >= end)

    def ready(self, n: int) -> int:
        known = n // self.hop_in
        if known < self.reach.first or known <= self.whole:
            return 0
        return max(0, known - self.reach.after) // self.step * self.step * self.hop_out

    def _window(self, stop: int, high: int, *, ended: bool = False) -> Tensor:
        """The frames up to `stop`, from a window up to `high`, where the sequence may end."""
        start, self._done = self._done, stop
        low = max(0, min(start - self.reach.before, high - MIN_FRAMES))
        low -= low > 0 and (high - low) % ODD_BEYOND == 0
        window = self._tail.cut(low * self.hop_in, high * self.hop_in)
        if not ended:  # what comes after is not seen by the frames that are taken
            width = high - low
            wider = max(MIN_FRAMES, width + (width % ODD_BEYOND == 0))
            window = F.pad(window, (0, (wider - width) * self.hop_in))
        out = self.run(window, low)[..., (start - low) * self.hop_out : (stop - low) * self.hop_out]
        self._tail.drop(max(0, min(stop - self.reach.before, high - MIN_FRAMES) - 1) * self.hop_in)
        return out


class Chunks:
    """A stage that runs a network on chunks by themselves, zeros past the end of the last.

    Args:
        run: chunk [..., length] -> [..., n_frames].
        length, stride: of chunks, and from chunk to chunk, in samples.
    """

    def __init__(
        self, run: Callable[[Tensor], Tensor], length: int, stride: int, n_frames: int
    ) -> None:
        self.run, self.length, self.stride, self.n_frames = run, length, stride, n_frames
        self._tail, self._done = _Tail(), 0

    def push(self, x: Tensor) -> Iterator[Tensor]:
        self._tail.add(x)
        while self._start + self.length <= self._tail.end:
            yield self._chunk()

    def finish(self) -> Iterator[Tensor]:
        while self._start < self._tail.end:
            yield self._chunk()

    def ready(self, n: int) -> int:
        return max(0, (n - self.length) // self.stride + 1) * self.n_frames

    @property
    def _start(self) -> int:
        return self._done * self.stride

    def _chunk(self) -> Tensor:
        chunk = self._tail.cut(self._start, self._start + self.length)
        self._done += 1
        self._tail.drop(min(self._start, self._tail.end))
        return self.run(F.pad(chunk, (0, self.length - chunk.shape[-1])))


class _Tail:
    """What is still needed of a sequence that grows."""

    def __init__(self) -> None:
        self.begin = self.end = 0
        self._pieces: list[Tensor] = []

    def add(self, x: Tensor) -> None:
        if x.shape[-1]:
            self._pieces.append(x)
            self.end += x.shape[-1]

    def cut(self, low: int, high: int) -> Tensor:
        if len(self._pieces) > 1:
            self._pieces = [torch.cat(self._pieces, dim=-1)]
        return self._pieces[0][..., low - self.begin : high - self.begin]

    def drop(self, low: int) -> None:
        """Forget what lies before `low`."""
        self._pieces, self.begin = [self.cut(low, self.end)], low


def push_through(stages: Sequence[Stage], x: Tensor) -> Iterator[Tensor]:
    """Push into the first of a chain of stages: what the last one gives."""
    if not stages:
        yield x
        return
    for piece in stages[0].push(x):
        yield from push_through(stages[1:], piece)


def finish_all(stages: Sequence[Stage]) -> Iterator[Tensor]:
    """End a chain of stages: the rest of what the last one gives."""
    if not stages:
        return
    for piece in stages[0].finish():
        yield from push_through(stages[1:], piece)
    yield from finish_all(stages[1:])


def run_whole(stages: Sequence[Stage], x: Tensor) -> Tensor:
    """What a chain of stages makes of a sequence that is there as a whole."""
    return torch.cat([*push_through(stages, x), *finish_all(stages)], dim=-1)


def fit_length(waveform: Tensor, n_samples: int) -> Tensor:
    """Cut or zero-pad the end of [..., N] to `n_samples`."""
    return F.pad(waveform, (0, n_samples - waveform.shape[-1]))
