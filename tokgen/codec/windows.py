"""Run networks over a sequence that arrives in pieces.

`Windows` runs a network with a finite receptive field window by window. Each window includes the
context that its frames depend on. Whole files and blocks go through the same windows, so the
results are equal to the bit, and memory holds one window.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, cast, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.spec import Encoded, Side

__all__ = [
    "MIN_FRAMES",
    "ROUND_WIDTH",
    "BlockDecoder",
    "BlockEncoder",
    "Conv",
    "Reach",
    "Skips",
    "Stage",
    "Tail",
    "Windows",
    "decoder_reach",
    "encoder_reach",
    "finish_all",
    "fit_length",
    "push_through",
    "run_whole",
]

# Windows narrower than MIN_FRAMES, or with a multiple of ROUND_WIDTH frames, go through other
# kernels of the CPU libraries, which round differently.
MIN_FRAMES = 65
ROUND_WIDTH = 32


class Stage(Protocol):
    """One stage of a chain: tensors [..., n] in, tensors [..., m] out, any n and m.

    `push` yields the output that is complete so far, `finish` the rest.
    """

    def push(self, x: Tensor) -> Iterator[Tensor]: ...

    def finish(self) -> Iterator[Tensor]: ...

    def ready(self, n: int) -> int:
        """Return the length of the output after `n` inputs, before `finish`."""
        ...


@runtime_checkable
class Skips(Protocol):
    """A stage that can begin within a sequence."""

    def skip(self, n: int) -> tuple[int, int]:
        """Skip what the outputs from `n` on do not depend on. Called before `push`.

        Returns:
            the first input to push, and the first output that `push` yields then. Outputs before
            `n` may differ from those of the whole sequence.
        """
        ...


@dataclass(frozen=True)
class Reach:
    """The receptive field of a network: the frames that one output frame depends on."""

    before: int  # frames before the output frame
    after: int  # frames after it
    first: int = 1  # frames before the first valid output; above 1 only with reflect padding


@dataclass(frozen=True)
class Conv:
    """The geometry of a convolution.

    Attributes:
        left: samples of padding before the sequence; if transposed, samples trimmed there.
    """

    kernel: int
    stride: int = 1
    dilation: int = 1
    left: int = 0
    transposed: bool = False

    def inputs(self, low: int, high: int) -> tuple[int, int]:
        """Return the first and the last input that outputs low..high depend on."""
        span = self.dilation * (self.kernel - 1)
        if self.transposed:
            return -(-(low + self.left - span) // self.stride), (high + self.left) // self.stride
        return low * self.stride - self.left, high * self.stride - self.left + span


def encoder_reach(layers: Sequence[Conv], mirrored: bool = False) -> Reach:
    """Return the reach of an encoder in frames; a frame is the product of the strides.

    Args:
        mirrored: True for reflect padding.
    """
    hop = math.prod(layer.stride for layer in layers)
    low, high = _inputs(layers, 0, 0)
    first = _first_needed(layers) // hop + 1 if mirrored else 1
    return Reach(max(0, -(low // hop)), max(0, high // hop), first)


def decoder_reach(layers: Sequence[Conv], mirrored: bool = False) -> Reach:
    """Return the reach of a decoder in frames; arguments are those of `encoder_reach`."""
    hop = math.prod(layer.stride for layer in layers)
    low, high = _inputs(layers, 0, hop - 1)
    return Reach(max(0, -low), max(0, high), _first_needed(layers) + 1 if mirrored else 1)


def _inputs(layers: Sequence[Conv], low: int, high: int) -> tuple[int, int]:
    for layer in reversed(layers):
        low, high = layer.inputs(low, high)
    return low, high


def _first_needed(layers: Sequence[Conv]) -> int:
    """Return the last input that the reflect padding of any layer depends on."""
    padded = [i for i, layer in enumerate(layers) if not layer.transposed and layer.left]
    return max((_inputs(layers[:i], 0, layers[i].left)[1] for i in padded), default=0)


class Windows:
    """A stage that runs a network of finite reach in windows.

    Args:
        run: (window [..., n * hop_in], index of its first frame) -> [..., n * hop_out]. The last
            window of a sequence may end within a frame.
        reach: receptive field of the network.
        size: most frames of output per window, without the context.
        step: frames of output are yielded in multiples of `step` as soon as possible. None
            means `size`: the windows then do not depend on how the sequence is split in pieces.
        hop_in, hop_out: inputs and outputs per frame.
        whole: sequences up to this many frames run as one window, if `step` is None.
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
        self._tail, self._done = Tail(), 0

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

    def skip(self, n: int) -> tuple[int, int]:
        """See `Skips`. Begins with a window of the whole sequence, so that the sums are equal."""
        if self.whole:
            return 0, 0
        self._done = n // self.hop_out // self.size * self.size
        low = max(0, self._done - max(self.reach.before, MIN_FRAMES) - 1) * self.hop_in
        self._tail.begin = self._tail.end = low
        return low, self._done * self.hop_out

    def _window(self, stop: int, high: int, *, ended: bool = False) -> Tensor:
        """Return the frames up to `stop`, computed from a window that ends at frame `high`."""
        start, self._done = self._done, stop
        low = max(0, min(start - self.reach.before, high - MIN_FRAMES))
        low -= low > 0 and (high - low) % ROUND_WIDTH == 0
        window = self._tail.cut(low * self.hop_in, high * self.hop_in)
        if not ended:  # the frames that are kept do not depend on this padding
            width = high - low
            wider = max(MIN_FRAMES, width + (width % ROUND_WIDTH == 0))
            window = F.pad(window, (0, (wider - width) * self.hop_in))
        out = self.run(window, low)[..., (start - low) * self.hop_out : (stop - low) * self.hop_out]
        self._tail.drop(max(0, min(stop - self.reach.before, high - MIN_FRAMES) - 1) * self.hop_in)
        return out


class Tail:
    """The part of a growing sequence that is still needed: elements `begin` to `end`."""

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
        """Drop the elements before `low`."""
        self._pieces, self.begin = [self.cut(low, self.end)], low


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
        pack: makes the input of the first stage of each block; None takes its codes.
        take_side: called with the side information of each block before its codes are pushed.
    """

    def __init__(
        self,
        *stages: Stage,
        pack: Callable[[Encoded], Tensor] | None = None,
        take_side: Callable[[Side], None] | None = None,
    ) -> None:
        self.stages, self._pack, self._take_side = stages, pack, take_side

    def push(self, encoded: Encoded) -> Iterator[Tensor]:
        """Add checked codes on the codec's device and yield the audio that is now complete."""
        if self._take_side is not None:
            self._take_side(encoded.side)
        codes = encoded.codes if self._pack is None else self._pack(encoded)
        yield from push_through(self.stages, codes)

    def skip(self, n_samples: int) -> tuple[int, int]:
        """Skip codes that the audio from sample `n_samples` on does not depend on.

        Called before `push`. The audio from this sample on is that of the whole sequence, to the
        bit; what comes before may differ.

        Returns:
            the frame to push first, and the sample that `push` then yields first. Both are 0 if a
            stage depends on all codes before.
        """
        found: list[tuple[int, int]] = []
        if all(isinstance(stage, Skips) for stage in self.stages):
            for stage in reversed(self.stages):
                found.append(cast(Skips, stage).skip(found[-1][0] if found else n_samples))
        return (found[-1][0], found[0][1]) if found else (0, 0)

    def finish(self) -> Iterator[Tensor]:
        """Yield the remaining audio at the end of the codes."""
        yield from finish_all(self.stages)

    def ready(self, n_frames: int) -> int:
        """Return the number of samples that `push` has yielded after `n_frames` frames."""
        return _ready(self.stages, n_frames)


def _ready(stages: Sequence[Stage], n: int) -> int:
    for stage in stages:
        n = stage.ready(n)
    return n


def push_through(stages: Sequence[Stage], x: Tensor) -> Iterator[Tensor]:
    """Push into the first stage of a chain and yield the output of the last one."""
    if not stages:
        yield x
        return
    for piece in stages[0].push(x):
        yield from push_through(stages[1:], piece)


def finish_all(stages: Sequence[Stage]) -> Iterator[Tensor]:
    """Finish every stage of a chain and yield the remaining output of the last one."""
    for i, stage in enumerate(stages):
        for piece in stage.finish():
            yield from push_through(stages[i + 1 :], piece)


def run_whole(stages: Sequence[Stage], x: Tensor) -> Tensor:
    """Return the output of a chain of stages for a whole sequence."""
    return torch.cat([*push_through(stages, x), *finish_all(stages)], dim=-1)


def fit_length(waveform: Tensor, n_samples: int) -> Tensor:
    """Cut or zero-pad the end of a waveform [..., N] to `n_samples`."""
    return F.pad(waveform, (0, n_samples - waveform.shape[-1]))
