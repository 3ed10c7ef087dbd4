"""Read and write audio.

    with open_blocks("long.mp3", sample_rate=16000) as blocks:
        for block in blocks:  # [1, n] each
            ...

Files are decoded block by block, mixed to mono and resampled. Memory holds one block, or the
result of `read_audio`, whatever a header claims.
"""

from __future__ import annotations

import math
import os
import shutil
import signal
import tempfile
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import FrameType
from typing import BinaryIO, Self, cast

import numpy as np
import torch
from torch import Tensor

from tokgen.audio.decoders import open_stream
from tokgen.audio.encoders import WRITTEN, Encoder, check_encoding, open_encoder
from tokgen.audio.resampling import Resampler
from tokgen.audio.sources import AudioError, Block, Source, Stream, display_name
from tokgen.disk import disk_errors

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
        source: a path, the bytes of a file, or an open binary file. A pipe, such as
            `sys.stdin.buffer`, is copied to a temporary file first.
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
        self._limit = math.inf if max_seconds is None else max_seconds
        if stream.exact and stream.seconds is not None and stream.seconds > self._limit:
            raise AudioError(label, _too_long(f"{stream.seconds:.1f} s long", max_seconds))
        self.sample_rate = stream.sample_rate if sample_rate is None else sample_rate
        self.seconds, self.n_samples = stream.seconds, 0
        self._resampler = Resampler(stream.sample_rate, self.sample_rate)
        self._blocks = self._resampled()

    def __iter__(self) -> Iterator[Tensor]:
        """Yield blocks float32 [1, n] in [-1, 1], of about 100,000 samples at the file's rate."""
        return self._blocks

    def _resampled(self) -> Iterator[Tensor]:
        for rate, block in self._mono():
            if rate != self._resampler.from_rate:
                yield from self._pieces(self._resampler.finish())
                self._resampler = Resampler(rate, self.sample_rate)
            yield from self._pieces(self._resampler.add(block))
        yield from self._pieces(self._resampler.finish())

    def _pieces(self, samples: np.ndarray) -> Iterator[Tensor]:
        if len(samples):
            self.n_samples += len(samples)
            yield torch.from_numpy(samples)[None].clamp(-1, 1)

    def _mono(self) -> Iterator[Block]:
        """Yield rates and blocks [n], checked."""
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
            yield rate, block.mean(1)
        if before + n_read == 0:
            raise AudioError(label, "holds no samples")


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
    """Writes mono audio block by block to a .wav, .flac, .mp3, .opus or .m4a file.

        with AudioWriter("out/a.flac", 24000) as writer:
            for block in blocks:
                writer.write(block)

    Parent folders are created. The file appears when the `with` block ends without an error. An
    open binary file, such as `sys.stdout.buffer`, gets all bytes at that time and stays open.

    Args:
        path: file to write; the suffix chooses the format. Or an open binary file.
        sample_rate: Hz. mp3, opus and m4a resample to the next rate that they have.
        subtype: sample type of soundfile for wav and flac: "PCM_16" (None), "PCM_24", or for wav
            "FLOAT".
        format: "wav", "flac", "mp3", "opus" or "m4a", whatever the suffix.
        kbps: bitrate of mp3 (128), opus (64) or m4a (96); see `tokgen.audio.encoders.BITRATES`.
    Attributes:
        n_samples: samples written so far.
        clipped: samples outside [-1, 1], which were clipped; always 0 for float subtypes.
    Raises:
        ValueError: unknown suffix, format, subtype or bitrate.
    """

    def __init__(
        self,
        path: str | Path | BinaryIO,
        sample_rate: int,
        subtype: str | None = None,
        *,
        format: str | None = None,
        kbps: float | None = None,
    ) -> None:
        self.path = Path(path) if isinstance(path, str | Path) else None
        self.name = display_name(path)
        self._target = None if isinstance(path, str | Path) else path
        suffix = "" if self.path is None else self.path.suffix
        self._format = (format or suffix[1:]).lower()
        if self._format not in WRITTEN:
            known = ", ".join(f".{kind}" for kind in WRITTEN)
            given = f"suffix {suffix!r}" if format is None and self.path else f"format {format!r}"
            raise ValueError(f"{self.name}: {given} is unknown; use one of {known}")
        check_encoding(self._format, subtype, kbps)
        self.sample_rate, self.subtype, self._kbps = sample_rate, subtype or "PCM_16", kbps
        self.n_samples = self.clipped = 0
        self._partial = self.path and self.path.with_name(self.path.name + ".partial")
        self._file: BinaryIO | None = None
        self._encoder: Encoder | None = None

    def __enter__(self) -> Self:
        return self

    def write(self, waveform: Tensor | np.ndarray) -> None:
        """Append samples, float [N] or [1, N].

        Raises:
            ValueError: wrong shape, empty, not finite, or more than a wav file can hold.
            OSError: the file cannot be written, for example because the disk is full.
        """
        samples = torch.as_tensor(waveform).detach().float().cpu()
        if samples.ndim == 2 and samples.shape[0] == 1:
            samples = samples[0]
        if samples.ndim != 1 or not len(samples):
            shape = list(waveform.shape)
            raise ValueError(f"waveform of shape {shape}: must be [N] or [1, N], N >= 1")
        if not samples.isfinite().all():
            raise ValueError(f"waveform for {self.name} holds NaN or infinite samples")
        n_bytes = (self.n_samples + len(samples)) * _SAMPLE_BYTES.get(self.subtype, 8)
        if self._format == "wav" and n_bytes > MAX_WAV_BYTES:
            raise ValueError(
                f"{self.name}: {n_bytes} bytes of samples are more than the {MAX_WAV_BYTES} that "
                "a .wav file holds; write .flac"
            )
        if self.subtype not in ("FLOAT", "DOUBLE"):
            self.clipped += int((samples.abs() > 1).sum())
            samples = samples.clamp(-1, 1)
        self.n_samples += len(samples)
        with held_interrupts(), disk_errors(self.name):
            if self._encoder is None:
                self._file = self._open()
                self._encoder = open_encoder(
                    self._file, self._format, self.sample_rate, self.subtype, self._kbps
                )
            self._encoder.write(samples.numpy())

    def _open(self) -> BinaryIO:
        if self._partial is None:  # a pipe cannot go back to write the length
            return cast(BinaryIO, tempfile.TemporaryFile())
        self._partial.parent.mkdir(parents=True, exist_ok=True)
        return self._partial.open("wb")

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file is None:
            if kind is None:
                raise ValueError(f"nothing was written to {self.name}: write at least one sample")
            return
        try:
            with held_interrupts(), disk_errors(self.name), self._file:
                if self._encoder is not None:
                    self._encoder.close()
                if kind is None and self._target is not None:
                    self._file.seek(0)
                    shutil.copyfileobj(self._file, self._target)
                    self._target.flush()
            if kind is None and self._partial and self.path:
                os.replace(self._partial, self.path)
        except Exception:
            if kind is None:
                raise  # the error in the `with` block says more
        finally:
            if self._partial:
                self._partial.unlink(missing_ok=True)


_SAMPLE_BYTES = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4}


def write_audio(
    path: str | Path | BinaryIO,
    waveform: Tensor | np.ndarray,
    sample_rate: int,
    subtype: str | None = None,
    *,
    format: str | None = None,
    kbps: float | None = None,
) -> int:
    """Write mono audio [N] or [1, N] as `AudioWriter` does, with its arguments.

    Returns:
        number of samples that were clipped.
    """
    with AudioWriter(path, sample_rate, subtype, format=format, kbps=kbps) as writer:
        writer.write(waveform)
    return writer.clipped


def _too_long(length: str, max_seconds: float | None) -> str:
    return (
        f"{length}: the limit is {max_seconds:g} s (max_seconds); split the file or raise the limit"
    )
