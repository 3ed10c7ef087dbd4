"""Open audio of any format as a stream of blocks.

soundfile (libsndfile) reads wav, flac, mp3, ogg and opus. FFmpeg reads the rest, such as m4a, g722
and webm, in a child process. `tokgen.audio.files` turns the blocks into waveforms.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import soundfile as sf

from tokgen.audio.ffmpeg import open_ffmpeg
from tokgen.audio.parts import Part, adts_seconds, find_parts
from tokgen.audio.quiet import quiet
from tokgen.audio.resampling import RATES
from tokgen.audio.sources import AudioError, Block, Slice, Source, Stream, open_source

__all__ = ["BLOCK_VALUES", "open_stream"]

BLOCK_VALUES = 1 << 18  # samples times channels per block

_HEADERLESS = {".g722": "g722"}  # FFmpeg format by suffix
_SHORT = re.compile(r"(?:data|SSND|Data Size)\s*:\s*(\d+) \(should be (\d+)\)")
_PLACEHOLDER = 0x7FFF_0000  # pipes do not know the length, and write a data size this large
_MOV_SLACK, _MP3_SLACK = 4096, 4608  # samples that may be missing without an error


@contextmanager
def open_stream(source: Source, label: str) -> Iterator[Stream]:
    """Open audio. The format is found by content, and for headerless formats by suffix.

    Args:
        label: display name; its suffix counts if `source` has no path.
    Raises:
        AudioError: missing, empty, truncated or not audio; `blocks` can raise it too.
    """
    suffix = Path(source if isinstance(source, str | Path) else label).suffix.lower()
    if suffix in (".raw", ".pcm", ".sln"):
        raise AudioError(label, f"{suffix} has no header to read; convert it to wav or flac")
    with open_source(source, label) as file:
        if suffix in _HEADERLESS:
            with open_ffmpeg(file, label, _HEADERLESS[suffix]) as stream:
                yield _checked(stream, label)
            return
        parts = find_parts(file, label)
        if len(parts) > 1:
            yield _joined(file, parts, label)
            return
        with _open_part(file, parts[0], label) as stream:
            yield stream


def _joined(file: BinaryIO, parts: list[Part], label: str) -> Stream:
    """Return the parts of a file as one stream."""
    heads = []
    for part in parts:
        with _open_part(_slice(file, part), part, label) as stream:
            heads.append((stream.sample_rate, stream.seconds, stream.exact))

    def blocks() -> Iterator[Block]:
        for part in parts:
            with _open_part(_slice(file, part), part, label) as stream:
                yield from stream.blocks

    lengths = [seconds for _, seconds, _ in heads if seconds is not None]
    seconds = sum(lengths) if len(lengths) == len(heads) else None
    exact = all(exact for _, _, exact in heads)
    return Stream(heads[0][0], seconds, exact, blocks())


def _slice(file: BinaryIO, part: Part) -> BinaryIO:
    return cast(BinaryIO, Slice(file, part.start, part.stop))


@contextmanager
def _open_part(file: BinaryIO, part: Part, label: str) -> Iterator[Stream]:
    file.seek(0)
    guarded = _GuardedFile(file)
    try:
        with quiet():
            sound = sf.SoundFile(guarded)
    except sf.LibsndfileError:
        guarded.check()
    else:
        with sound:
            yield _soundfile_stream(sound, guarded, part, label)
        return
    seconds = adts_seconds(file)
    file.seek(0)
    with open_ffmpeg(file, label) as stream:
        if not stream.exact:
            stream.seconds = seconds or stream.seconds
        yield _checked(stream, label)


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


def _soundfile_stream(sound: sf.SoundFile, file: _GuardedFile, part: Part, label: str) -> Stream:
    rate, n_frames = _check_rate(sound.samplerate, label), part.n_samples or sound.frames
    for claimed, present in _SHORT.findall(sound.extra_info):
        if int(present) < int(claimed) < _PLACEHOLDER:
            share = int(claimed) / max(int(present), 1)
            raise AudioError(label, _truncated(round(n_frames * share), n_frames, rate))
    if sound.format == "OGG" and not _ogg_ends(file.file):
        raise AudioError(label, "truncated: the last Ogg page is missing")

    def blocks() -> Iterator[Block]:
        size = max(1, BLOCK_VALUES // sound.channels)
        try:
            while len(block := _read(sound, size)):
                file.check()
                yield rate, block
            file.check()
        except sf.LibsndfileError as error:
            file.check()
            raise AudioError(label, f"damaged or truncated ({error.error_string})") from error

    slack = _MP3_SLACK if sound.format in ("MP3", "MPEG") else 0
    return Stream(rate, n_frames / rate, True, _promised(blocks(), n_frames, slack, label))


def _read(sound: sf.SoundFile, size: int) -> np.ndarray:
    with quiet():
        return sound.read(size, dtype="float32", always_2d=True)


def _ogg_ends(file: BinaryIO) -> bool:
    """Return True if the last Ogg page of a file is marked as the end of its stream."""
    position = file.tell()
    start = max(0, file.seek(0, os.SEEK_END) - 70_000)  # a page is 65,307 bytes at most
    file.seek(start)
    tail = file.read()
    file.seek(position)
    page = tail.rfind(b"OggS")
    return page < 0 or (page + 5 < len(tail) and bool(tail[page + 5] & 4))


def _checked(stream: Stream, label: str) -> Stream:
    """Check the rates and the length of a stream of FFmpeg."""
    rate = _check_rate(stream.sample_rate, label)
    blocks: Iterator[Block] = ((_check_rate(found, label), block) for found, block in stream.blocks)
    if stream.exact and stream.seconds is not None:
        blocks = _promised(blocks, round(stream.seconds * rate), _MOV_SLACK, label)
    return Stream(rate, stream.seconds, stream.exact, blocks)


def _promised(blocks: Iterator[Block], promised: int, slack: int, label: str) -> Iterator[Block]:
    """Yield blocks of one rate without samples that a header does not promise.

    Raises:
        AudioError: samples are missing, more than `slack`.
    """
    held = 0
    for rate, block in blocks:
        block = block[: promised - held]
        held += len(block)
        yield rate, block
    if held and held < promised - slack:
        raise AudioError(label, _truncated(promised, held, rate))


def _check_rate(rate: int, label: str) -> int:
    if not RATES[0] <= rate <= RATES[1]:
        raise AudioError(label, f"sample rate {rate} Hz: must be {RATES[0]} to {RATES[1]} Hz")
    return rate


def _truncated(promised: int, held: int, rate: int) -> str:
    """Return the reason for an `AudioError`, from samples promised and held."""
    seconds = promised / rate, held / rate
    return "truncated: the header promises {:.2f} s, the file holds {:.2f} s".format(*seconds)
