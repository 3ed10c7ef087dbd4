"""Read and write audio.

    with open_blocks("long.mp3", sample_rate=16000) as blocks:
        for block in blocks:  # [1, n] each
            ...

Files are decoded block by block, mixed to mono unless `channels` keeps them, and resampled. Memory
holds one block, or the result of `read_audio`, whatever a header claims.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, Self, cast

import numpy as np
import torch
from torch import Tensor

from tokgen.audio.blocks import AudioBlocks, held_interrupts
from tokgen.audio.decoders import open_stream
from tokgen.audio.encoders import MOST_CHANNELS, WRITTEN, Encoder, check_encoding, open_encoder
from tokgen.audio.sources import AudioError, Source, display_name
from tokgen.disk import disk_errors

__all__ = [
    "AUDIO_SUFFIXES",
    "MAX_WAV_BYTES",
    "AudioWriter",
    "open_blocks",
    "read_audio",
    "read_duration",
    "write_audio",
]

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".g722", ".webm"),
    *(".mka", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64", ".wma", ".amr"),
)
MAX_WAV_BYTES = (1 << 32) - 4096  # the format counts bytes of samples in 32 bits


@contextmanager
def open_blocks(
    source: Source,
    *,
    sample_rate: int | None = None,
    name: str | None = None,
    max_seconds: float | None = None,
    channels: int | None = 1,
) -> Iterator[AudioBlocks]:
    """Open audio to decode it block by block.

    Args:
        source: a path, the bytes of a file, or an open binary file. A pipe, such as
            `sys.stdin.buffer`, is copied to a temporary file first.
        sample_rate: Hz to resample to; None keeps the file's rate.
        name: name for messages. For headerless bytes (g722), its suffix names the format.
        max_seconds: longest audio to accept; None accepts any length.
        channels: 1 mixes all channels to their mean. C keeps the channels of a file of C channels;
            a mono file stays mono, and other files are refused. None keeps those of any file, and
            does not clip samples. If the number changes within a file, the first one counts.
    Yields:
        the blocks; concatenated, they equal the result of `read_audio`.
    Raises:
        AudioError: as `read_audio`, here or while the blocks are read.
    """
    label = display_name(source) if name is None else name
    with ExitStack() as stack:
        with held_interrupts():
            stream = stack.enter_context(open_stream(source, label))
        yield AudioBlocks(stream, label, sample_rate, max_seconds, channels)


def read_audio(
    source: Source,
    *,
    sample_rate: int | None = None,
    name: str | None = None,
    max_seconds: float | None = None,
    channels: int | None = 1,
) -> tuple[Tensor, int]:
    """Decode audio, to mono unless `channels` keeps more. Arguments are those of `open_blocks`.

    Returns:
        waveform float32 [1, N] in [-1, 1], the mean of the channels, and its rate in Hz. [C, N]
        for a file whose channels are kept.
    Raises:
        AudioError: missing, empty, not audio, truncated, without samples, not finite, not scaled
            to [-1, 1], longer than max_seconds, or of another number of channels.
    """
    options = {"name": name, "max_seconds": max_seconds, "channels": channels}
    with open_blocks(source, sample_rate=sample_rate, **options) as blocks:  # type: ignore[arg-type]
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
    """Writes audio block by block to a .wav, .flac, .mp3, .opus or .m4a file.

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
        kbps: bitrate of mp3 (128), opus (64) or m4a (96), twice as much for stereo; see
            `tokgen.audio.encoders.BITRATES`.
    Attributes:
        n_samples: samples written so far.
        n_channels: channels of the file; 0 before the first samples.
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
        self.n_samples = self.n_channels = self.clipped = 0
        self._partial = self.path and self.path.with_name(self.path.name + ".partial")
        self._file: BinaryIO | None = None
        self._encoder: Encoder | None = None

    def __enter__(self) -> Self:
        return self

    def write(self, waveform: Tensor | np.ndarray) -> None:
        """Append samples, float [N], [1, N] or [C, N].

        The first samples set the number of channels: up to 2 for mp3, opus and m4a, 8 for flac,
        64 for wav.

        Raises:
            ValueError: wrong shape, empty, not finite, or more than a wav file can hold.
            OSError: the file cannot be written, for example because the disk is full.
        """
        samples = torch.as_tensor(waveform).detach().float().cpu()
        samples = samples[None] if samples.ndim == 1 else samples
        most, n = MOST_CHANNELS[self._format], self.n_channels
        if samples.ndim != 2 or not samples.numel() or not len(samples) <= most:
            shape = list(waveform.shape)
            raise ValueError(
                f"waveform of shape {shape}: must be [N] or [C, N], N >= 1, and C <= {most} for "
                f"{self._format}"
            )
        if n and len(samples) != n:
            raise ValueError(f"{len(samples)} channels after {n} for {self.name}: keep to one")
        self.n_channels = len(samples)
        if not samples.isfinite().all():
            raise ValueError(f"waveform for {self.name} holds NaN or infinite samples")
        length = self.n_samples + samples.shape[1]
        n_bytes = length * len(samples) * _SAMPLE_BYTES.get(self.subtype, 8)
        if self._format == "wav" and n_bytes > MAX_WAV_BYTES:
            raise ValueError(
                f"{self.name}: {n_bytes} bytes of samples are more than the {MAX_WAV_BYTES} that "
                "a .wav file holds; write .flac"
            )
        if self.subtype not in ("FLOAT", "DOUBLE"):
            self.clipped += int((samples.abs() > 1).sum())
            samples = samples.clamp(-1, 1)
        self.n_samples = length
        with held_interrupts(), disk_errors(self.name):
            if self._encoder is None:
                self._file = self._open()
                about = self.sample_rate, self.subtype, self._kbps, self.n_channels
                self._encoder = open_encoder(self._file, self._format, *about)
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
    """Write audio [N] or [C, N] as `AudioWriter` does, with its arguments.

    Returns:
        number of samples that were clipped.
    """
    with AudioWriter(path, sample_rate, subtype, format=format, kbps=kbps) as writer:
        writer.write(waveform)
    return writer.clipped
