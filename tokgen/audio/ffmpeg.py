"""Decode audio with FFmpeg in a child process, which may crash without harm.

A process starts its child when it first needs one, and uses it again for other files.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from tokgen.audio.ffmpeg_child import (
    BLOCK,
    CLOSE,
    DATA,
    FAILED,
    NEXT,
    OPEN,
    READ,
    SECONDS,
    SEEK,
    receive,
    send,
)
from tokgen.audio.sources import AudioError, Block, Stream

__all__ = ["open_ffmpeg"]


@contextmanager
def open_ffmpeg(file: BinaryIO, label: str, form: str | None = None) -> Iterator[Stream]:
    """Open the first audio stream of a file.

    Args:
        file: an open, seekable file.
        label: name for messages.
        form: name of FFmpeg for a format without a header; None finds the format by content.
    Raises:
        AudioError: not audio, damaged, or FFmpeg crashed, or needed too much time or memory;
            `blocks` can raise it too.
        Exception: `file` could not be read.
    """
    child = _borrow()
    try:
        head = json.loads(child.ask(file, label, OPEN, json.dumps(form).encode())[1])

        def blocks() -> Iterator[Block]:
            while (answer := child.ask(file, label, NEXT))[0] == BLOCK:
                rate, channels = struct.unpack_from("<qq", answer[1])
                yield rate, np.frombuffer(answer[1], np.float32, offset=16).reshape(-1, channels)

        yield Stream(head["rate"], head["seconds"], head["exact"], blocks())
    finally:
        child.release()


class _Child:
    """A process that runs `ffmpeg_child`."""

    def __init__(self) -> None:
        folders = [
            *filter(None, sys.path),
            str(Path(__file__).parents[2]),
        ]  # "" is none for a child
        path = os.pathsep.join(map(os.path.abspath, folders))
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "tokgen.audio.ffmpeg_child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
            cwd=os.sep,
            process_group=0,  # Ctrl-C is for the parent
        )
        self.pipes = cast(tuple[BinaryIO, BinaryIO], (self.process.stdin, self.process.stdout))
        self.usable = True

    def ask(
        self, file: BinaryIO, label: str, kind: bytes, content: bytes = b""
    ) -> tuple[bytes, bytes]:
        """Send a message, hand over the bytes that the child asks for, and return its answer."""
        usable, self.usable = self.usable, False  # until the answer is here
        if not usable:
            raise AudioError(label, "its decoder ended before")
        answer = self._exchange(label, kind, content)
        while answer[0] in (READ, SEEK):
            answer = self._exchange(label, DATA, _handed_over(file, *answer))
        self.usable = True
        if answer[0] == FAILED:
            raise AudioError(label, answer[1].decode())
        return answer

    def _exchange(self, label: str, kind: bytes, content: bytes) -> tuple[bytes, bytes]:
        try:
            send(self.pipes[0], kind, content)
            return receive(self.pipes[1])
        except (EOFError, BrokenPipeError) as error:
            raise AudioError(label, self._death()) from error

    def _death(self) -> str:
        try:
            code = self.process.wait(10)
        except subprocess.TimeoutExpired:
            return "FFmpeg sent a wrong answer"
        if -code == signal.SIGXCPU:
            return f"FFmpeg decoded for more than {SECONDS} s without a result"
        name = signal.Signals(-code).name if code < 0 else f"exit status {code}"
        return f"FFmpeg crashed while it decoded the file ({name})"

    def release(self) -> None:
        """Keep the process for the next file, if it can be used and none is kept yet."""
        if self.usable and not _idle:
            try:
                self.ask(cast(BinaryIO, None), "", CLOSE)
            except AudioError:
                self.end()
            else:
                _idle.append(self)
        else:
            self.end()

    def end(self) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in self.pipes:
            with suppress(BrokenPipeError):
                pipe.close()

    def forget(self) -> None:
        """Close a forked process' copies of the pipes; the child is its parent's."""
        for pipe in self.pipes:
            pipe.close()
        self.process.returncode = 0


_idle: list[_Child] = []  # at most one


def _borrow() -> _Child:
    try:
        child = _idle.pop()
    except IndexError:
        return _Child()
    if child.process.poll() is None:
        return child
    child.end()
    return _Child()


def _handed_over(file: BinaryIO, kind: bytes, content: bytes) -> bytes:
    if kind == READ:
        return file.read(min(max(struct.unpack("<q", content)[0], 0), 1 << 24))
    offset, whence = struct.unpack("<qq", content)
    try:
        return struct.pack("<q", file.seek(offset, whence))
    except (OSError, ValueError):  # a damaged header points outside of the file
        return struct.pack("<q", -1)


def _end_all() -> None:
    while _idle:
        _idle.pop().end()


def _forget_all() -> None:
    while _idle:
        _idle.pop().forget()


atexit.register(_end_all)
os.register_at_fork(after_in_child=_forget_all)
