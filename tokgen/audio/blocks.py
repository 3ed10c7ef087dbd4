"""The blocks of an audio file, mixed or with their channels, and resampled."""

from __future__ import annotations

import math
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from itertools import chain
from types import FrameType

import numpy as np
import torch
from torch import Tensor

from tokgen.audio.resampling import Resampler, check_rates
from tokgen.audio.sources import AudioError, Block, Stream

__all__ = ["MAX_PEAK", "AudioBlocks", "held_interrupts"]

MAX_PEAK = 8.0  # lossy codecs exceed 1 a little; integers stored as floats reach thousands


@contextmanager
def held_interrupts() -> Iterator[None]:
    """Delay Ctrl-C until the end of the `with` block.

    soundfile reads through callbacks. It prints and drops an exception in a callback, and the file
    then looks truncated. Only the main thread is interrupted; in others this does nothing.
    """
    handler = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(handler):
        yield
        return
    caught: list[tuple[int, FrameType | None]] = []
    signal.signal(signal.SIGINT, lambda *event: caught.append(event))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        if caught:
            handler(*caught[0])


class AudioBlocks:
    """Iterator over the blocks of a file, created by `tokgen.audio.files.open_blocks`.

    Attributes:
        sample_rate: rate of the blocks in Hz.
        seconds: duration in the header, in some formats an estimate; None if unknown.
        n_samples: samples yielded so far.
    """

    def __init__(
        self,
        stream: Stream,
        label: str,
        sample_rate: int | None,
        max_seconds: float | None,
        channels: int | None,
    ) -> None:
        self._most, self._ready = channels, list[Block]()
        self._stream, self._label, self._max_seconds = stream, label, max_seconds
        self._limit = math.inf if max_seconds is None else max_seconds
        if stream.exact and stream.seconds is not None and stream.seconds > self._limit:
            raise AudioError(label, _too_long(f"{stream.seconds:.1f} s long", max_seconds))
        self.sample_rate = stream.sample_rate if sample_rate is None else sample_rate
        self.seconds, self.n_samples = stream.seconds, 0
        check_rates(stream.sample_rate, self.sample_rate)
        self._checked = self._check()
        self._blocks = self._resampled()

    def __iter__(self) -> Iterator[Tensor]:
        """Yield blocks float32 [C, n] in [-1, 1], of about 100,000 samples at the file's rate."""
        return self._blocks

    @cached_property
    def channels(self) -> int:
        """Channels of the blocks. May decode the first block.

        Raises:
            AudioError: as `open_blocks`.
        """
        if self._most == 1:
            return 1
        first = next(self._checked, None)
        if first is None:
            return 1
        self._ready.append(first)
        found = first[1].shape[1]
        if self._most is not None and found not in (1, self._most):
            raise AudioError(
                self._label,
                f"has {found} channels, but must have 1 or {self._most}: mix it to one of these",
            )
        return found

    def _resampled(self) -> Iterator[Tensor]:
        resampler, channels = None, self.channels
        for rate, block in chain(self._ready, self._checked):
            if resampler is None or rate != resampler.from_rate:
                if resampler is not None:
                    yield from self._pieces(resampler.finish())
                resampler = Resampler(rate, self.sample_rate, channels)
            if channels == 1:
                block = block.mean(1)
            elif block.shape[1] != channels:
                block = np.repeat(block.mean(1, keepdims=True), channels, axis=1)
            yield from self._pieces(resampler.add(block))
        if resampler is not None:
            yield from self._pieces(resampler.finish())

    def _pieces(self, samples: np.ndarray) -> Iterator[Tensor]:
        if len(samples):
            self.n_samples += len(samples)
            found = (
                torch.from_numpy(np.require(samples, requirements="W")).reshape(len(samples), -1).T
            )
            yield found if self._most is None else found.clamp(-1, 1)

    def _check(self) -> Iterator[Block]:
        """Yield rates and blocks [n, channels], checked."""
        label, before, n_read, rate = self._label, 0.0, 0, self._stream.sample_rate
        while True:
            with held_interrupts():
                found, block = next(self._stream.blocks, (0, None))
            if block is None:
                break
            if found != rate:
                before, n_read, rate = before + n_read / rate, 0, found
            n_read += len(block)
            if before + n_read / rate > self._limit:
                raise AudioError(label, _too_long("longer", self._max_seconds))
            if not np.isfinite(block).all():
                raise AudioError(label, "holds NaN or infinite samples")
            if (peak := np.abs(block).max(initial=0)) > MAX_PEAK:
                raise AudioError(label, f"samples reach {peak:.4g}; rescale them to [-1, 1]")
            yield rate, block
        if before + n_read == 0:
            raise AudioError(label, "holds no samples")


def _too_long(length: str, max_seconds: float | None) -> str:
    return (
        f"{length}: the limit is {max_seconds:g} s (max_seconds); split the file or raise the limit"
    )
