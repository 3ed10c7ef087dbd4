"""Read, write and resample audio.

    with open_blocks("long.mp3", sample_rate=16000) as blocks:
        for block in blocks:  # [1, n] each
            ...

Files are decoded block by block, mixed to mono and resampled. Memory holds one block, or the
result of `read_audio`, whatever a header claims.
"""

from __future__ import annotations

import math
import os
import signal
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Self

import numpy as np
import soundfile as sf
import soxr
import torch
from torch import Tensor

from tokgen.audio.decoders import (
    RATES,
    AudioError,
    Source,
    Stream,
    display_name,
    open_stream,
    truncated,
)

__all__ = [
    "AUDIO_SUFFIXES",
    "MAX_PEAK",
    "MAX_WAV_BYTES",
    "AudioBlocks",
    "AudioWriter",
    "held_interrupts",
    "open_blocks",
    "read_audio",
    "read_duration",
    "resample",
    "write_audio",
]

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".g722", ".webm"),
    *(".mka", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64", ".wma", ".amr"),
)
MAX_PEAK = 8.0  # lossy codecs exceed 1 a little; integers stored as floats reach thousands
MAX_WAV_BYTES = (1 << 32) - 4096  # the format counts bytes of samples in 32 bits


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


@contextmanager
def open_blocks(
    source: Source,
    *,
    sample_rate: int | None = None,
    name: str | None = None,
    max_seconds: float | None = None,
) -> Iterator[AudioBlocks]:
    """Open audio to decode it block by block.

    Args:
        source: a path, the bytes of a file, or an open, seekable binary file.
        sample_rate: Hz to resample to; None keeps the file's rate.
        name: name for messages. For headerless bytes (g722), its suffix names the format.
        max_seconds: longest audio to accept; None accepts any length.
    Yields:
        the blocks; concatenated, they equal the result of `read_audio`.
    Raises:
        AudioError: as `read_audio`, here or while the blocks are read.
    """
    label = display_name(source) if name is None else name
    with ExitStack() as stack:
        with held_interrupts():
            stream = stack.enter_context(open_stream(source, label))
        yield AudioBlocks(stream, label, sample_rate, max_seconds)


class AudioBlocks:
    """Iterator over the blocks of a file, created by `open_blocks`.

    Attributes:
        sample_rate: rate of the blocks in Hz.
        seconds: duration in the header, in some formats an estimate; None if unknown.
        n_samples: samples yielded so far.
    """

    def __init__(
        self, stream: Stream, label: str, sample_rate: int | None, max_seconds: float | None
    ) -> None:
        self._stream, self._label, self._max_seconds = stream, label, max_seconds
        self._limit = math.inf if max_seconds is None else max_seconds * stream.sample_rate
        if stream.n_frames is not None and stream.n_frames > self._limit:
            seconds = stream.n_frames / stream.sample_rate
            raise AudioError(label, _too_long(f"{seconds:.1f} s long", max_seconds))
        self.sample_rate = stream.sample_rate if sample_rate is None else sample_rate
        self.seconds, self.n_samples = stream.seconds, 0
        self._resampler = _Resampler(stream.sample_rate, self.sample_rate)
        self._blocks = self._resampled()

    def __iter__(self) -> Iterator[Tensor]:
        """Yield blocks float32 [1, n] in [-1, 1], of about 100,000 samples at the file's rate."""
        return self._blocks

    def _resampled(self) -> Iterator[Tensor]:
        for block in self._mono():
            yield from self._pieces(self._resampler.add(block))
        yield from self._pieces(self._resampler.finish())

    def _pieces(self, samples: np.ndarray) -> Iterator[Tensor]:
        if len(samples):
            self.n_samples += len(samples)
            yield torch.from_numpy(samples)[None].clamp(-1, 1)

    def _mono(self) -> Iterator[np.ndarray]:
        stream, label, n_read = self._stream, self._label, 0
        while True:
            with held_interrupts():
                block = next(stream.blocks, None)
            if block is None:
                break
            if stream.n_frames is not None:
                block = block[: stream.n_frames - n_read]
            n_read += len(block)
            if n_read > self._limit:
                raise AudioError(label, _too_long("longer", self._max_seconds))
            if not np.isfinite(block).all():
                raise AudioError(label, "holds NaN or infinite samples")
            if (peak := np.abs(block).max(initial=0)) > MAX_PEAK:
                raise AudioError(label, f"samples reach {peak:.4g}; rescale them to [-1, 1]")
            yield block.mean(1)
        if n_read == 0:
            raise AudioError(label, "holds no samples")
        if stream.n_frames is not None and n_read < stream.n_frames - stream.slack:
            raise AudioError(label, truncated(stream.n_frames, n_read, stream.sample_rate))


def read_audio(
    source: Source,
    *,
    sample_rate: int | None = None,
    name: str | None = None,
    max_seconds: float | None = None,
) -> tuple[Tensor, int]:
    """Decode audio to mono. Arguments are those of `open_blocks`.

    Returns:
        waveform float32 [1, N] in [-1, 1], the mean of the channels, and its rate in Hz.
    Raises:
        AudioError: missing, empty, not audio, truncated, without samples, not finite, not scaled
            to [-1, 1], or longer than max_seconds.
    """
    with open_blocks(source, sample_rate=sample_rate, name=name, max_seconds=max_seconds) as blocks:
        return torch.cat(list(blocks), dim=-1), blocks.sample_rate


def read_duration(source: Source, *, name: str | None = None) -> float | None:
    """Return the seconds in the header, or None if they are unknown or the file is unreadable."""
    label = display_name(source) if name is None else name
    try:
        with open_stream(source, label) as stream:
            return stream.seconds
    except AudioError:
        return None


class AudioWriter:
    """Writes mono audio block by block to a .wav or .flac file.

        with AudioWriter("out/a.flac", 24000) as writer:
            for block in blocks:
                writer.write(block)

    Parent folders are created. The file appears when the `with` block ends without an error.

    Args:
        path: file to write; the suffix chooses the format.
        sample_rate: Hz.
        subtype: sample type of soundfile: "PCM_16", "PCM_24", or for wav "FLOAT".
    Attributes:
        n_samples: samples written so far.
        clipped: samples outside [-1, 1], which were clipped; always 0 for float subtypes.
    Raises:
        ValueError: unknown suffix or subtype.
    """

    def __init__(self, path: str | Path, sample_rate: int, subtype: str = "PCM_16") -> None:
        self.path, self.sample_rate, self.subtype = Path(path), sample_rate, subtype
        suffix = self.path.suffix
        self._format = suffix[1:].upper()
        if self._format not in ("WAV", "FLAC"):
            raise ValueError(f"{path}: suffix {suffix!r} is not .wav or .flac; use one of them")
        if not sf.check_format(self._format, subtype):
            known = ", ".join(sf.available_subtypes(self._format))
            raise ValueError(
                f"subtype {subtype!r} is not available for {self._format}; use one of {known}"
            )
        self.n_samples = self.clipped = 0
        self._partial = self.path.with_name(self.path.name + ".partial")
        self._file: BinaryIO | None = None
        self._sound: sf.SoundFile | None = None

    def __enter__(self) -> Self:
        return self

    def write(self, waveform: Tensor | np.ndarray) -> None:
        """Append samples, float [N] or [1, N].

        Raises:
            ValueError: wrong shape, empty, not finite, or more than a wav file can hold.
        """
        samples = torch.as_tensor(waveform).detach().float().cpu()
        if samples.ndim == 2 and samples.shape[0] == 1:
            samples = samples[0]
        if samples.ndim != 1 or not len(samples):
            shape = list(waveform.shape)
            raise ValueError(f"waveform of shape {shape}: must be [N] or [1, N], N >= 1")
        if not samples.isfinite().all():
            raise ValueError(f"waveform for {self.path} holds NaN or infinite samples")
        n_bytes = (self.n_samples + len(samples)) * _SAMPLE_BYTES.get(self.subtype, 8)
        if self._format == "WAV" and n_bytes > MAX_WAV_BYTES:
            raise ValueError(
                f"{self.path}: {n_bytes} bytes of samples are more than the {MAX_WAV_BYTES} that "
                "a .wav file holds; write .flac"
            )
        if self.subtype not in ("FLOAT", "DOUBLE"):
            self.clipped += int((samples.abs() > 1).sum())
            samples = samples.clamp(-1, 1)
        self.n_samples += len(samples)
        with held_interrupts():
            if self._sound is None:
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._partial.open("wb")
                self._sound = sf.SoundFile(
                    self._file, "w", self.sample_rate, 1, self.subtype, format=self._format
                )
            self._sound.write(samples.numpy())

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._sound is None or self._file is None:
            if kind is None:
                raise ValueError(f"nothing was written to {self.path}: write at least one sample")
            return
        try:
            with held_interrupts():
                self._sound.close()
                self._file.close()
            if kind is None:
                os.replace(self._partial, self.path)
        finally:
            self._partial.unlink(missing_ok=True)


_SAMPLE_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4}


def write_audio(
    path: str | Path, waveform: Tensor | np.ndarray, sample_rate: int, subtype: str = "PCM_16"
) -> int:
    """Write mono audio [N] or [1, N] to a .wav or .flac file as `AudioWriter` does.

    Returns:
        number of samples that were clipped.
    """
    with AudioWriter(path, sample_rate, subtype) as writer:
        writer.write(waveform)
    return writer.clipped


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample a waveform [..., N] with soxr (HQ); rates are in Hz.

    Returns:
        float32 [..., ceil(N * to_rate / from_rate)] on the same device.
    """
    flat = waveform.detach().float().reshape(-1, waveform.shape[-1]).cpu().numpy()
    rows = []
    for row in flat:
        resampler = _Resampler(from_rate, to_rate)
        rows.append(np.concatenate([resampler.add(row), resampler.finish()]))
    n_out = -(-waveform.shape[-1] * to_rate // from_rate)
    out = torch.from_numpy(np.stack(rows)) if rows else torch.zeros(0, n_out)
    return out.reshape(*waveform.shape[:-1], n_out).to(waveform.device)


class _Resampler:
    """Resamples blocks [n] with soxr, to ceil(N * to_rate / from_rate) samples in all."""

    def __init__(self, from_rate: int, to_rate: int) -> None:
        for rate in (from_rate, to_rate):
            if not RATES[0] <= rate <= RATES[1]:
                raise ValueError(f"sample rate {rate} Hz: must be {RATES[0]} to {RATES[1]} Hz")
        self.from_rate, self.to_rate = from_rate, to_rate
        self.n_in = self.n_out = 0
        same = from_rate == to_rate
        self.stream = None if same else soxr.ResampleStream(from_rate, to_rate, 1, dtype="float32")

    def add(self, block: np.ndarray) -> np.ndarray:
        self.n_in += len(block)
        out = block if self.stream is None else self.stream.resample_chunk(block)
        self.n_out += len(out)
        return out

    def finish(self) -> np.ndarray:
        empty = np.zeros(0, np.float32)
        out = empty if self.stream is None else self.stream.resample_chunk(empty, last=True)
        missing = -(-self.n_in * self.to_rate // self.from_rate) - self.n_out
        return np.pad(out[: max(missing, 0)], (0, max(missing - len(out), 0)))


def _too_long(length: str, max_seconds: float | None) -> str:
    return (
        f"{length}: the limit is {max_seconds:g} s (max_seconds); split the file or raise the limit"
    )
