"""Encode audio into open files, block by block.

soundfile writes wav and flac. PyAV (FFmpeg) writes mp3, opus and m4a.
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import BinaryIO, Protocol, cast

import av
import numpy as np
import soundfile as sf

from tokgen.audio.resampling import Resampler

__all__ = ["BITRATES", "MOST_CHANNELS", "WRITTEN", "Encoder", "check_encoding", "open_encoder"]

WRITTEN = ("wav", "flac", "mp3", "opus", "m4a")  # formats, and suffixes of files
BITRATES = {"mp3": 128.0, "opus": 64.0, "m4a": 96.0}  # kbps for one channel
MOST_CHANNELS = {"wav": 64, "flac": 8, "mp3": 2, "opus": 2, "m4a": 2}
_LIMITS = {"mp3": (8, 320), "opus": (6, 256), "m4a": (8, 320)}  # kbps
_ENCODERS = {  # container, encoder and sample type of FFmpeg
    "mp3": ("mp3", "libmp3lame", "fltp"),
    "opus": ("ogg", "libopus", "flt"),
    "m4a": ("ipod", "aac", "fltp"),
}


class Encoder(Protocol):
    """Writes samples float32 [C, N] in [-1, 1] into a file that the caller opened and closes."""

    def write(self, samples: np.ndarray) -> None: ...

    def close(self) -> None: ...


def check_encoding(kind: str, subtype: str | None, kbps: float | None) -> None:
    """Raise ValueError if a format of `WRITTEN` does not have a sample type or a bitrate."""
    if kind not in BITRATES:
        if kbps is not None:
            raise ValueError(f"{kind} has no bitrate: leave kbps out, or write {list(BITRATES)}")
        if not sf.check_format(kind.upper(), subtype):
            known = ", ".join(sf.available_subtypes(kind.upper()))
            raise ValueError(
                f"subtype {subtype!r} is not available for {kind.upper()}; use one of {known}"
            )
        return
    if subtype is not None:
        raise ValueError(f"{kind} has no sample types: leave out subtype {subtype!r}")
    least, most = _LIMITS[kind]
    if kbps is not None and not least <= kbps <= most:
        raise ValueError(f"{kind} at {kbps:g} kbps: must be {least} to {most} kbps")


def open_encoder(
    file: BinaryIO,
    kind: str,
    sample_rate: int,
    subtype: str | None,
    kbps: float | None,
    channels: int = 1,
) -> Encoder:
    """Start a file.

    Args:
        file: an open, seekable file.
        kind: one of `WRITTEN`.
        sample_rate: Hz. mp3, opus and m4a resample to the next rate that they have.
        subtype: sample type of soundfile for wav and flac; None means 16 bits.
        kbps: bitrate of mp3, opus and m4a; None means that of `BITRATES` for each channel. Rates
            below 32 kHz have lower limits, to which FFmpeg falls back.
        channels: channels of the audio, up to `MOST_CHANNELS`.
    """
    if kind in BITRATES:
        return _FfmpegEncoder(file, kind, sample_rate, kbps or channels * BITRATES[kind], channels)
    return _SoundfileEncoder(file, kind, sample_rate, subtype or "PCM_16", channels)


class _SoundfileEncoder:
    def __init__(
        self, file: BinaryIO, kind: str, sample_rate: int, subtype: str, channels: int
    ) -> None:
        self._file = _GuardedFile(file)
        about = sample_rate, channels, subtype
        self._sound = sf.SoundFile(self._file, "w", *about, format=kind.upper())

    def write(self, samples: np.ndarray) -> None:
        try:
            self._sound.write(samples.T)
        except (AssertionError, sf.LibsndfileError):  # fewer samples were written
            self._file.check()
            raise
        self._file.check()

    def close(self) -> None:
        self._sound.close()
        self._file.check()


class _GuardedFile:
    """A file whose first error is kept for `check`.

    An exception inside a callback of libsndfile would be printed and ignored.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def write(self, data: bytes) -> int:
        return self._kept(self._file.write, data)

    def seek(self, offset: int, whence: int = 0) -> int:  # writes what is buffered
        return self._kept(self._file.seek, offset, whence)

    def tell(self) -> int:
        return self._kept(self._file.tell)

    def _kept(self, call: Callable[..., int], *arguments: bytes | int) -> int:
        if self._error is None:
            try:
                return call(*arguments)
            except OSError as error:
                self._error = error
        return 0

    def check(self) -> None:
        if self._error is not None:
            raise self._error


class _FfmpegEncoder:
    def __init__(
        self, file: BinaryIO, kind: str, sample_rate: int, kbps: float, channels: int
    ) -> None:
        container, encoder, sample_type = _ENCODERS[kind]
        options = {"fflags": "+bitexact"}  # no random serial numbers: equal audio, equal bytes
        self._container = av.open(file, "w", format=container, options=options)
        codec = av.Codec(encoder, "w")
        rates = sorted(codec.audio_rates or [sample_rate])
        self._rate = next((rate for rate in rates if rate >= sample_rate), rates[-1])
        self._layout = "mono" if channels == 1 else "stereo"
        stream = self._container.add_stream(encoder, rate=self._rate, layout=self._layout)
        self._stream = cast(av.AudioStream, stream)
        self._context = self._stream.codec_context
        self._context.format = sample_type
        self._context.bit_rate = round(1000 * kbps)
        self._context.open()
        size = self._context.frame_size or None
        self._fit = av.AudioResampler(sample_type, self._layout, self._rate, size)
        self._resampler = Resampler(sample_rate, self._rate, channels)
        self._n_written = 0

    def write(self, samples: np.ndarray) -> None:
        self._add(self._resampler.add(samples[0] if len(samples) == 1 else samples.T))

    def _add(self, samples: np.ndarray) -> None:
        if len(samples):
            planes = np.ascontiguousarray(samples.reshape(len(samples), -1).T)
            frame = av.AudioFrame.from_ndarray(planes, "fltp", self._layout)
            frame.sample_rate, frame.pts = self._rate, self._n_written
            frame.time_base = Fraction(1, self._rate)
            self._n_written += len(samples)
            self._encode(frame)

    def _encode(self, frame: av.AudioFrame | None) -> None:
        for part in self._fit.resample(frame):
            self._container.mux(self._stream.encode(part))

    def close(self) -> None:
        try:
            self._add(self._resampler.finish())
            self._encode(None)
            self._container.mux(self._stream.encode(None))
        finally:
            self._container.close()
