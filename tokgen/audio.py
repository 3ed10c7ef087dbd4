"""Read, write and resample: the only audio file I/O of the package.

soundfile (libsndfile) reads wav, flac, mp3, ogg and opus; PyAV (FFmpeg) reads the rest: m4a,
g722, webm and more. Files are decoded in blocks that are mixed to mono and resampled as they
come, so memory holds the result and one block, whatever a header claims.
"""

from __future__ import annotations

import io
import math
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
import soundfile as sf
import soxr
import torch
from torch import Tensor

from tokgen.interrupts import held_interrupts

AUDIO_SUFFIXES = (
    *(".wav", ".flac", ".mp3", ".ogg", ".oga", ".opus", ".m4a", ".mp4", ".aac", ".g722", ".webm"),
    *(".mka", ".aif", ".aiff", ".aifc", ".au", ".caf", ".w64", ".rf64", ".wma", ".amr"),
)
BLOCK_VALUES = 1 << 18  # samples times channels decoded at once
RATES = (1_000, 768_000)  # Hz; outside, a header is taken for damaged
MAX_PEAK = 8.0  # lossy codecs overshoot 1 a little; integers stored as floats reach thousands

# FFmpeg formats that hold audio and open no other file (concat, hls and their kind do).
_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,caf,eac3,flac,g722,matroska,mov,mp3,mpc,mpc8,mpegts,ogg,tta,"
    "w64,wav,wv"
)
_HEADERLESS = {".g722": "g722"}  # FFmpeg format by suffix: nothing in the file tells
_SHORT = re.compile(r"(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)")
_PLACEHOLDER = 0x7FFF_0000  # a data size from here on was written by a pipe that could not know


class AudioError(ValueError):
    """Audio that cannot be used.

    Attributes:
        source: the file, row or name, as shown to people.
        reason: what is wrong with it.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source, self.reason = source, reason

    def __str__(self) -> str:
        return f"cannot read {self.source}: {self.reason}"


def read_audio(
    source: str | Path | bytes,
    *,
    sample_rate: int | None = None,
    name: str | None = None,
    max_seconds: float | None = None,
) -> tuple[Tensor, int]:
    """Decode audio to mono.

    Args:
        source: a file, or the bytes of one.
        sample_rate: Hz to resample to; None keeps the file's.
        name: for messages; its suffix tells what headerless bytes (g722) hold.
        max_seconds: refuse anything longer; None decodes all of it.
    Returns:
        waveform float32 [1, N] in [-1, 1], the mean of the channels, and its rate in Hz.
    Raises:
        AudioError: missing, empty, not audio, truncated, without samples, not finite, too loud
            to be in [-1, 1], or longer than max_seconds.
    """
    label = display_name(source) if name is None else name
    with held_interrupts(), _open_stream(source, label) as stream:
        limit = math.inf if max_seconds is None else max_seconds * stream.sample_rate
        if stream.n_frames is not None and stream.n_frames > limit:
            seconds = stream.n_frames / stream.sample_rate
            raise AudioError(label, _too_long(f"{seconds:.1f} s long", max_seconds))
        rate = stream.sample_rate if sample_rate is None else sample_rate
        resampler = _Resampler(stream.sample_rate, rate)
        chunks, n_read = [], 0
        for block in stream.blocks:
            if stream.n_frames is not None:
                block = block[: stream.n_frames - n_read]
            n_read += len(block)
            if n_read > limit:
                raise AudioError(label, _too_long("longer", max_seconds))
            if not np.isfinite(block).all():
                raise AudioError(label, "holds NaN or infinite samples")
            if (peak := np.abs(block).max(initial=0)) > MAX_PEAK:
                raise AudioError(label, f"samples reach {peak:.4g}; rescale them to [-1, 1]")
            chunks.append(resampler.add(block.mean(1)))
        if n_read == 0:
            raise AudioError(label, "holds no samples")
        if stream.n_frames is not None and n_read < stream.n_frames - stream.slack:
            raise AudioError(label, _truncated(stream.n_frames, n_read, stream.sample_rate))
    chunks.append(resampler.finish())
    waveform = torch.from_numpy(np.concatenate(chunks))[None]
    return waveform.clamp_(-1, 1), rate


def read_duration(source: str | Path | bytes, *, name: str | None = None) -> float | None:
    """Seconds from the header; None where it does not say or cannot be read."""
    label = display_name(source) if name is None else name
    try:
        with _open_stream(source, label) as stream:
            return stream.seconds
    except AudioError:
        return None


def write_audio(
    path: str | Path, waveform: Tensor, sample_rate: int, subtype: str = "PCM_16"
) -> int:
    """Write mono audio, format by suffix; parent folders are made.

    Args:
        path: ends in .wav or .flac.
        waveform: float [N] or [1, N].
        sample_rate: Hz.
        subtype: of soundfile: "PCM_16", "PCM_24", or for wav "FLOAT".
    Returns:
        how many samples lay outside [-1, 1] and were clipped (0 for float subtypes, which
        keep them).
    Raises:
        ValueError: wrong shape, empty, not finite, unknown suffix or subtype.
    """
    path = Path(path)
    file_format = path.suffix[1:].upper()
    if file_format not in ("WAV", "FLAC"):
        raise ValueError(f"{path}: suffix {path.suffix!r} is not .wav or .flac; use one of them")
    if not sf.check_format(file_format, subtype):
        known = ", ".join(sf.available_subtypes(file_format))
        raise ValueError(f"subtype {subtype!r} does not go into {file_format}; use one of {known}")
    samples = waveform.detach().float().cpu()
    if samples.ndim == 2 and samples.shape[0] == 1:
        samples = samples[0]
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"waveform of shape {list(waveform.shape)}: must be [N] or [1, N], N >= 1")
    if not samples.isfinite().all():
        raise ValueError(f"waveform for {path} holds NaN or infinite samples")
    clipped = 0
    if subtype not in ("FLOAT", "DOUBLE"):
        clipped = int((samples.abs() > 1).sum())
        samples = samples.clamp(-1, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        sf.write(file, samples.numpy(), sample_rate, subtype=subtype, format=file_format)
    return clipped


def resample(waveform: Tensor, from_rate: int, to_rate: int) -> Tensor:
    """Resample with soxr (HQ).

    Args:
        waveform: float [..., N].
        from_rate: Hz.
        to_rate: Hz.
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


def display_name(source: str | Path | bytes) -> str:
    """How a source is shown: always valid Unicode, whatever bytes its name holds."""
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    return os.fsencode(source).decode("utf-8", "backslashreplace")


class _Resampler:
    """Streams [n] blocks through soxr; the pieces add up to ceil(N * to / from) samples."""

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


@dataclass
class _Stream:
    sample_rate: int
    seconds: float | None  # as the header has it, an estimate in some formats
    n_frames: int | None  # what the header promises; None where it makes no firm promise
    slack: int  # samples that may be missing from the promise
    blocks: Iterator[np.ndarray]  # float32 [n, channels]


@contextmanager
def _open_stream(source: str | Path | bytes, label: str) -> Iterator[_Stream]:
    suffix = Path(label if isinstance(source, bytes) else source).suffix.lower()
    with _open_file(source, label) as file:
        if suffix in (".raw", ".pcm", ".sln"):
            raise AudioError(label, f"{suffix} has no header to read; convert it to wav or flac")
        if suffix not in _HEADERLESS:
            try:
                sound = sf.SoundFile(_Quiet(file))
            except sf.LibsndfileError:
                file.seek(0)
            else:
                with sound:
                    yield _soundfile_stream(sound, file, label)
                return
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
        try:
            container = av.open(file, "r", format=_HEADERLESS.get(suffix), options=options)
        except (av.FFmpegError, UnicodeDecodeError) as error:
            raise AudioError(label, f"not audio, or cut short ({_say(error)})") from error
        with container:
            yield _av_stream(container, label)


class _Quiet:
    """A file whose `seek` never raises: a damaged header sends libsndfile before its start."""

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.read, self.tell = file, file.read, file.tell
        self.readinto = file.readinto  # type: ignore[attr-defined]

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):
            return -1


def _open_file(source: str | Path | bytes, label: str) -> BinaryIO:
    if isinstance(source, bytes):
        size, file = len(source), cast(BinaryIO, io.BytesIO(source))
    else:
        path = Path(source)
        if not path.is_file():
            there = "\0" not in str(path) and os.path.lexists(path)
            raise AudioError(label, "not a regular file" if there else "no such file")
        try:
            size, file = path.stat().st_size, path.open("rb")
        except OSError as error:
            raise AudioError(label, error.strerror or str(error)) from error
    if size == 0:
        file.close()
        raise AudioError(label, "empty file (0 bytes)")
    return file


def _soundfile_stream(sound: sf.SoundFile, file: BinaryIO, label: str) -> _Stream:
    rate, n_frames = _check_rate(sound.samplerate, label), sound.frames
    for claimed, present in _SHORT.findall(sound.extra_info):
        if int(present) < int(claimed) < _PLACEHOLDER:
            share = int(claimed) / max(int(present), 1)
            raise AudioError(label, _truncated(round(n_frames * share), n_frames, rate))
    if sound.format == "OGG" and not _ogg_ends(file):
        raise AudioError(label, "truncated: the last Ogg page is missing")

    def blocks() -> Iterator[np.ndarray]:
        size = max(1, BLOCK_VALUES // sound.channels)
        try:
            while len(block := sound.read(size, dtype="float32", always_2d=True)):
                yield block
        except sf.LibsndfileError as error:
            raise AudioError(label, f"damaged or truncated ({error.error_string})") from error

    slack = 4608 if sound.format in ("MP3", "MPEG") else 0
    return _Stream(rate, n_frames / rate, n_frames, slack, blocks())


def _ogg_ends(file: BinaryIO) -> bool:
    """Whether the last Ogg page of a file is marked as the end of its stream."""
    position = file.tell()
    start = max(0, file.seek(0, os.SEEK_END) - 70_000)  # a page is 65,307 bytes at most
    file.seek(start)
    tail = file.read()
    file.seek(position)
    page = tail.rfind(b"OggS")
    return page < 0 or (page + 5 < len(tail) and bool(tail[page + 5] & 4))


def _av_stream(container: av.container.InputContainer, label: str) -> _Stream:
    if not container.streams.audio:
        raise AudioError(label, "holds no audio stream")
    track = container.streams.audio[0]
    frames = _av_frames(container, label)
    first = next(frames, None)
    if first is None:
        raise AudioError(label, "holds no samples")
    rate = _check_rate(first.sample_rate, label)

    def blocks() -> Iterator[np.ndarray]:
        convert = av.AudioResampler(format="fltp")
        frame: av.AudioFrame | None = first
        while frame is not None:
            try:
                parts = convert.resample(frame)
            except ValueError as error:
                raise AudioError(label, "changes its rate or channels on the way") from error
            for part in parts:
                yield part.to_ndarray().T
            frame = next(frames, None)

    if track.duration and track.time_base and "mov" in container.format.name:
        seconds = float(track.duration * track.time_base)
        return _Stream(rate, seconds, round(seconds * rate), 4096, blocks())
    estimate = None if container.duration is None else container.duration / av.time_base
    return _Stream(rate, estimate, None, 0, blocks())


def _av_frames(container: av.container.InputContainer, label: str) -> Iterator[av.AudioFrame]:
    try:
        yield from container.decode(audio=0)
    except av.FFmpegError as error:
        raise AudioError(label, f"damaged or truncated ({_say(error)})") from error


def _check_rate(rate: int, label: str) -> int:
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(label, f"sample rate {rate} Hz: must be {RATES[0]} to {RATES[1]} Hz")
    return rate


def _say(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _too_long(what: str, max_seconds: float | None) -> str:
    return (
        f"{what}: the limit is {max_seconds:g} s (max_seconds); split the file or raise the limit"
    )


def _truncated(promised: int, held: int, rate: int) -> str:
    return f"truncated: its header promises {promised / rate:.2f} s, {held / rate:.2f} s are there"
