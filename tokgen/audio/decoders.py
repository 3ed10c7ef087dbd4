"""Open audio of any format as a stream of blocks.

soundfile (libsndfile) reads wav, flac, mp3, ogg and opus. PyAV (FFmpeg) reads the rest, such as
m4a, g722 and webm. `tokgen.audio.files` turns the blocks into waveforms.
"""

from __future__ import annotations

import io
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import av
import numpy as np
import soundfile as sf

from tokgen.audio.resampling import RATES
from tokgen.disk import disk_errors

__all__ = [
    "BLOCK_VALUES",
    "AudioError",
    "Source",
    "Stream",
    "display_name",
    "open_stream",
    "truncated",
]

BLOCK_VALUES = 1 << 18  # samples times channels per block

Source = str | Path | bytes | BinaryIO  # a path, a file's bytes, or an open binary file

# FFmpeg formats that hold audio and do not open other files, as concat and hls do.
_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,caf,eac3,flac,g722,matroska,mov,mp3,mpc,mpc8,mpegts,ogg,tta,"
    "w64,wav,wv"
)
_HEADERLESS = {".g722": "g722"}  # FFmpeg format by suffix
_SHORT = re.compile(r"(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)")
_PLACEHOLDER = 0x7FFF_0000  # pipes do not know the length, and write a data size this large


class AudioError(ValueError):
    """An audio file that cannot be used.

    Attributes:
        source: display name of the file or row.
        reason: what is wrong with it.
    """

    def __init__(self, source: str, reason: str) -> None:
        super().__init__(source, reason)
        self.source, self.reason = source, reason

    def __str__(self) -> str:
        return f"cannot read {self.source}: {self.reason}"


def display_name(source: Source) -> str:
    """Return a source's name as valid Unicode, for messages."""
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if not isinstance(source, str | Path):
        source = str(getattr(source, "name", "<open file>"))
    return os.fsencode(source).decode("utf-8", "backslashreplace")


@dataclass
class Stream:
    """Decoded audio of a container.

    Attributes:
        sample_rate: Hz.
        seconds: duration in the header, in some formats an estimate; None if unknown.
        n_frames: samples that the header promises; None if it makes no exact promise.
        slack: samples that may be missing without an error.
        blocks: float32 [n, channels], each of up to `BLOCK_VALUES` values or one packet.
    """

    sample_rate: int
    seconds: float | None
    n_frames: int | None
    slack: int
    blocks: Iterator[np.ndarray]


@contextmanager
def open_stream(source: Source, label: str) -> Iterator[Stream]:
    """Open audio. The format is found by content, and for headerless formats by suffix.

    Args:
        label: display name; its suffix counts if `source` has no path.
    Raises:
        AudioError: missing, empty, truncated or not audio; `blocks` can raise it too.
    """
    suffix = Path(source if isinstance(source, str | Path) else label).suffix.lower()
    with _open_file(source, label) as file:
        if suffix in (".raw", ".pcm", ".sln"):
            raise AudioError(label, f"{suffix} has no header to read; convert it to wav or flac")
        if suffix not in _HEADERLESS:
            guarded = _GuardedFile(file)
            try:
                sound = sf.SoundFile(guarded)
            except sf.LibsndfileError:
                guarded.check()
                file.seek(0)
            else:
                with sound:
                    yield _soundfile_stream(sound, guarded, label)
                return
        options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
        try:
            container = av.open(file, "r", format=_HEADERLESS.get(suffix), options=options)
        except (av.FFmpegError, UnicodeDecodeError) as error:
            raise AudioError(label, f"not audio, or cut short ({_message(error)})") from error
        with container:
            yield _av_stream(container, label)


class _GuardedFile:
    """A file whose read errors are kept for `check`.

    An exception inside a callback of libsndfile would be printed and ignored.
    """

    def __init__(self, file: BinaryIO) -> None:
        self.file, self.tell = file, file.tell
        self.error: Exception | None = None

    def readinto(self, buffer: memoryview) -> int:
        try:
            return self.file.readinto(buffer)  # type: ignore[attr-defined]
        except Exception as error:
            self.error = error
            return 0

    def seek(self, offset: int, whence: int = 0) -> int:
        try:
            return self.file.seek(offset, whence)
        except (OSError, ValueError):  # a damaged header points before the start
            return -1

    def check(self) -> None:
        if self.error is not None:
            raise self.error


def _open_file(source: Source, label: str) -> AbstractContextManager[BinaryIO]:
    file: BinaryIO
    if isinstance(source, bytes):
        size, file = len(source), cast(BinaryIO, io.BytesIO(source))
    elif not isinstance(source, str | Path):
        file = source if source.seekable() else _copied(source)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        if file is source and size:
            return nullcontext(source)  # the caller closes it
        if file is source:
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


def _copied(pipe: BinaryIO) -> BinaryIO:
    """Return a temporary file with the bytes of a pipe."""
    with disk_errors(tempfile.gettempdir()):
        file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
        shutil.copyfileobj(pipe, file)
    return file


def _soundfile_stream(sound: sf.SoundFile, file: _GuardedFile, label: str) -> Stream:
    rate, n_frames = _check_rate(sound.samplerate, label), sound.frames
    for claimed, present in _SHORT.findall(sound.extra_info):
        if int(present) < int(claimed) < _PLACEHOLDER:
            share = int(claimed) / max(int(present), 1)
            raise AudioError(label, truncated(round(n_frames * share), n_frames, rate))
    if sound.format == "OGG" and not _ogg_ends(file.file):
        raise AudioError(label, "truncated: the last Ogg page is missing")

    def blocks() -> Iterator[np.ndarray]:
        size = max(1, BLOCK_VALUES // sound.channels)
        try:
            while len(block := sound.read(size, dtype="float32", always_2d=True)):
                file.check()
                yield block
            file.check()
        except sf.LibsndfileError as error:
            file.check()
            raise AudioError(label, f"damaged or truncated ({error.error_string})") from error

    slack = 4608 if sound.format in ("MP3", "MPEG") else 0
    return Stream(rate, n_frames / rate, n_frames, slack, blocks())


def _ogg_ends(file: BinaryIO) -> bool:
    """Return True if the last Ogg page of a file is marked as the end of its stream."""
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
                raise AudioError(label, "changes its sample rate or channels midway") from error
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
        raise AudioError(label, f"damaged or truncated ({_message(error)})") from error


def _check_rate(rate: int, label: str) -> int:
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(label, f"sample rate {rate} Hz: must be {RATES[0]} to {RATES[1]} Hz")
    return rate


def _message(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def truncated(promised: int, held: int, rate: int) -> str:
    """Return the reason for an `AudioError`, from samples promised and held."""
    seconds = promised / rate, held / rate
    return "truncated: the header promises {:.2f} s, the file holds {:.2f} s".format(*seconds)
