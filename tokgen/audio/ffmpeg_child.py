"""Decode audio with FFmpeg, in a process of its own: `python -m tokgen.audio.ffmpeg_child`.

A damaged file can crash FFmpeg or keep it busy for ever. That ends this process alone, and
`tokgen.audio.ffmpeg`, which started it, reports the file.

A message is a letter, the length of its content in 8 bytes, and its content. The parent sends
OPEN, and then NEXT for each block, and CLOSE. The answers are HEAD, BLOCK, END or FAILED. Before
an answer, the child may ask for bytes of the file with READ and SEEK: it opens no file itself.
"""

from __future__ import annotations

import json
import os
import signal
import struct
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import av
import numpy as np

__all__ = [
    "BLOCK",
    "BLOCK_VALUES",
    "CLOSE",
    "DATA",
    "END",
    "FAILED",
    "HEAD",
    "MEMORY",
    "NEXT",
    "OPEN",
    "READ",
    "SECONDS",
    "SEEK",
    "receive",
    "send",
    "serve",
]

OPEN, NEXT, CLOSE, DATA = b"O", b"N", b"C", b"D"  # from the parent
HEAD, BLOCK, END, FAILED, READ, SEEK = b"H", b"B", b"E", b"F", b"R", b"S"  # from the child

BLOCK_VALUES = 1 << 18  # samples times channels per block
MEMORY = 2 << 30  # bytes that the process may allocate after its start
SECONDS = 60  # processor time for an answer

# FFmpeg formats that hold audio and do not open other files, as concat and hls do.
_FORMATS = (
    "aac,ac3,aiff,amr,ape,asf,au,caf,eac3,flac,g722,matroska,mov,mp3,mpc,mpc8,mpegts,ogg,tta,"
    "w64,wav,wv"
)
_PREFIX = struct.Struct("<cQ")


def send(pipe: BinaryIO, kind: bytes, content: bytes = b"") -> None:
    """Write a message."""
    pipe.write(_PREFIX.pack(kind, len(content)) + content)
    pipe.flush()


def receive(pipe: BinaryIO) -> tuple[bytes, bytes]:
    """Read a message.

    Raises:
        EOFError: the other process closed the pipe, or it sends nonsense.
    """
    prefix = pipe.read(_PREFIX.size)
    if len(prefix) < _PREFIX.size:
        raise EOFError
    kind, size = _PREFIX.unpack(prefix)
    if size > 1 << 28:
        raise EOFError
    content = pipe.read(size)
    if len(content) < size:
        raise EOFError
    return kind, content


class _ParentsFile:
    """The file that the parent has open."""

    def __init__(self, pipes: tuple[BinaryIO, BinaryIO]) -> None:
        self._in, self._out = pipes

    def read(self, size: int) -> bytes:
        send(self._out, READ, struct.pack("<q", size))
        return receive(self._in)[1]

    def seek(self, offset: int, whence: int = 0) -> int:
        send(self._out, SEEK, struct.pack("<qq", offset, whence))
        (position,) = struct.unpack("<q", receive(self._in)[1])
        if position < 0:
            raise OSError("seek outside of the file")
        return position

    def tell(self) -> int:
        return self.seek(0, os.SEEK_CUR)


def _decode(file: _ParentsFile, form: str | None) -> Iterator[tuple[bytes, bytes]]:
    """Yield a HEAD message and BLOCK messages."""
    options = {"format_whitelist": _FORMATS, "protocol_whitelist": "none"}
    try:
        container = av.open(file, "r", format=form, options=options)
    except MemoryError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"not audio, or cut short ({_text(error)})") from error
    with container:
        if not container.streams.audio:
            raise ValueError("holds no audio stream")
        track = container.streams.audio[0]
        blocks = _blocks(_frames(container))
        first = next(blocks, None)
        if first is None:
            raise ValueError("holds no samples")
        seconds, exact = None, "mov" in container.format.name and bool(track.duration)
        if exact and track.duration and track.time_base:
            seconds = float(track.duration * track.time_base)
        elif container.duration is not None:
            seconds = container.duration / av.time_base
        yield HEAD, json.dumps({"rate": first[0], "seconds": seconds, "exact": exact}).encode()
        block: tuple[int, int, bytes] | None = first
        while block is not None:
            yield BLOCK, struct.pack("<qq", *block[:2]) + block[2]
            block = next(blocks, None)


def _frames(container: av.container.InputContainer) -> Iterator[av.AudioFrame]:
    try:
        yield from container.decode(audio=0)
    except MemoryError:
        raise
    except (av.FFmpegError, OSError, ValueError) as error:
        raise ValueError(f"damaged or truncated ({_text(error)})") from error


def _blocks(frames: Iterator[av.AudioFrame]) -> Iterator[tuple[int, int, bytes]]:
    """Yield rate, channels and interleaved float32 samples: of one frame, then of several."""
    setup: tuple[int, int, str, str] | None = None
    parts: list[bytes] = []
    size, wanted = 0, 1  # the header needs one frame only
    for frame in frames:
        channels = frame.layout.nb_channels
        found = (frame.sample_rate, channels, frame.layout.name, frame.format.name)
        if found != setup:
            if setup is not None and parts:
                yield setup[0], setup[1], b"".join(parts)
            setup, parts, size = found, [], 0
            convert = av.AudioResampler(format="flt")  # to_ndarray of planes fails over 8 channels
        for part in convert.resample(frame):
            parts.append(part.to_ndarray().astype(np.float32, copy=False).tobytes())
            size += part.samples * channels
        if size >= wanted:
            yield setup[0], channels, b"".join(parts)
            parts, size, wanted = [], 0, BLOCK_VALUES
    if setup is not None and parts:
        yield setup[0], setup[1], b"".join(parts)


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _limit() -> None:
    """Limit memory, and write no core files."""
    try:
        import resource

        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (ImportError, OSError):  # not Linux
        return
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    _set_soft(resource.RLIMIT_AS, pages * resource.getpagesize() + MEMORY)


def _allow_time() -> None:
    """Let the system end this process if the next answer takes more than `SECONDS`."""
    try:
        import resource
    except ImportError:
        return
    _set_soft(resource.RLIMIT_CPU, int(time.process_time()) + SECONDS + 1)


def _set_soft(limit: int, value: int) -> None:
    import resource

    hard = resource.getrlimit(limit)[1]
    resource.setrlimit(limit, (value if hard < 0 else min(value, hard), hard))


def serve() -> None:
    """Answer the parent until it closes the pipe."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    pipes = sys.stdin.buffer, sys.stdout.buffer
    av.logging.set_level(None)
    _limit()
    messages: Iterator[tuple[bytes, bytes]] = iter(())
    while True:
        try:
            kind, content = receive(pipes[0])
        except EOFError:
            return
        _allow_time()
        try:
            if kind == OPEN:
                messages = _decode(_ParentsFile(pipes), json.loads(content))
            if kind == CLOSE:
                messages = iter(())
            answer = next(messages, (END, b""))
        except MemoryError:
            send(pipes[1], FAILED, f"needs more than {MEMORY >> 20} MiB of memory".encode())
            return  # a new process has its memory in order
        except (av.FFmpegError, OSError, ValueError) as error:
            answer = FAILED, str(error).encode("utf-8", "backslashreplace")
        send(pipes[1], *answer)


if __name__ == "__main__":
    serve()
