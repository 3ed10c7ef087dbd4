"""Audio containers opened for reading, whichever library knows them, as blocks of samples.

soundfile (libsndfile) reads wav, flac, mp3, ogg and opus; PyAV (FFmpeg) reads the rest: m4a,
g722, webm and more. `tokgen.audio.files` makes waveforms of what is found here.
"""

from __future__ import annotations

import io
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
import soundfile as sf

BLOCK_VALUES = 1 << 18  # samples times channels decoded at once
RATES = (1_000, 768_000)  # Hz; outside, a header is taken for damaged

Source = str | Path | bytes | BinaryIO  # a file, the bytes of one, or one that is open and seekable

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


def display_name(source: Source) -> str:
    """How a source is shown: always valid Unicode, whatever bytes its name holds."""
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if not isinstance(source, str | Path):
        source = str(getattr(source, "name", "<open file>"))
    return os.fsencode(source).decode("utf-8", "backslashreplace")


@dataclass
class Stream:
    """What a container holds.

    Attributes:
        sample_rate: Hz.
        seconds: as the header has it, an estimate in some formats; None where it does not say.
        n_frames: samples that the header promises; None where it makes no firm promise.
        slack: samples that may be missing from the promise.
        blocks: float32 [n, channels], of `BLOCK_VALUES` values or one packet.
    """

    sample_rate: int
    seconds: float | None
    n_frames: int | None
    slack: int
    blocks: Iterator[np.ndarray]


@contextmanager
def open_stream(source: Source, label: str) -> Iterator[Stream]:
    """Open audio, its kind found by content; what `label` ends in tells headerless kinds.

    Raises:
        AudioError: missing, empty, truncated or not audio; `blocks` raises it too.
    """
    suffix = Path(source if isinstance(source, str | Path) else label).suffix.lower()
    with _open_file(source, label) as file:
        if suffix in (".raw", ".pcm", ".sln"):
            raise AudioError(label, f"{suffix} has no header to read; convert it to wav or flac")
        if suffix not in _HEADERLESS:
            quiet = _Quiet(file)
            try:
                sound = sf.SoundFile(quiet)
            except sf.LibsndfileError:
                quiet.check()
                file.seek(0)
            else:
                with sound:
                    yield _soundfile_stream(sound, quiet, label)
                return
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
        try:
            container = av.open(file, "r", format=_HEADERLESS.get(suffix), options=options)
        except (av.FFmpegError, UnicodeDecodeError) as error:
            raise AudioError(label, f"not audio, or cut short ({_say(error)})") from error
        with container:
            yield _av_stream(container, label)


class _Quiet:
    """A file that raises nothing into libsndfile, which would print it and go on.

    Attributes:
        failed: what a read raised (a connection was lost, say), for `check` to raise.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.tell = file, file.tell
        self.failed: Exception | None = None

    def readinto(self, buffer: memoryview) -> int:
        try:
            return self.file.readinto(buffer)  # type: ignore[attr-defined]
        except Exception as error:
            self.failed = error
            return 0

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):  # a damaged header points before its start
            return -1

    def check(self) -> None:
        if self.failed is not None:
            raise self.failed


def _open_file(source: Source, label: str) -> AbstractContextManager[BinaryIO]:
    file: BinaryIO
    if isinstance(source, bytes):
        size, file = len(source), cast(BinaryIO, io.BytesIO(source))
    elif not isinstance(source, str | Path):
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        if size:
            return nullcontext(source)  # its owner closes it
        file = cast(BinaryIO, io.BytesIO())
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


def _soundfile_stream(sound: sf.SoundFile, quiet: _Quiet, label: str) -> Stream:
    rate, n_frames = _check_rate(sound.samplerate, label), sound.frames
    for claimed, present in _SHORT.findall(sound.extra_info):
        if int(present) < int(claimed) < _PLACEHOLDER:
            share = int(claimed) / max(int(present), 1)
            raise AudioError(label, truncated(round(n_frames * share), n_frames, rate))
    if sound.format == "OGG" and not _ogg_ends(quiet.file):
        raise AudioError(label, "truncated: the last Ogg page is missing")

    def blocks() -> Iterator[np.ndarray]:
        size = max(1, BLOCK_VALUES // sound.channels)
        try:
            while len(block := sound.read(size, dtype="float32", always_2d=True)):
                quiet.check()
                yield block
            quiet.check()
        except sf.LibsndfileError as error:
            quiet.check()
            raise AudioError(label, f"damaged or truncated ({error.error_string})") from error

    slack = 4608 if sound.format in ("MP3", "MPEG") else 0
    return Stream(rate, n_frames / rate, n_frames, slack, blocks())


def _ogg_ends(file: BinaryIO) -> bool:
    """Whether the last Ogg page of a file is marked as the end of its stream."""
    position = file.tell()
    start = max(0, file.seek(0, os.SEEK_END) - 70_000)  # a page is 65,307 bytes at most
    file.seek(start)
    tail = file.read()
    file.seek(position)
    page = tail.rfind(b"OggS")
    return page < 0 or (page + 5 < len(tail) and bool(tail[page + 5] & 4))


def _av_stream(container: av.container.InputContainer, label: str) -> Stream:
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
        return Stream(rate, seconds, round(seconds * rate), 4096, blocks())
    estimate = None if container.duration is None else container.duration / av.time_base
    return Stream(rate, estimate, None, 0, blocks())


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


def truncated(promised: int, held: int, rate: int) -> str:
    return f"truncated: its header promises {promised / rate:.2f} s, {held / rate:.2f} s are there"
