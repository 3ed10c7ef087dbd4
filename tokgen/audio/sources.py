"""Open paths, bytes and open files as audio, and the error that names them."""

from __future__ import annotations

import io
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np

from tokgen.disk import disk_errors

__all__ = ["AudioError", "Block", "Slice", "Source", "Stream", "display_name", "open_source"]

Source = str | Path | bytes | BinaryIO  # a path, a file's bytes, or an open binary file
Block = tuple[int, np.ndarray]  # a rate in Hz, and samples float32 [n, channels]

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a named pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


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


@dataclass
class Stream:
    """Decoded audio of a file.

    Attributes:
        sample_rate: Hz, at the start.
        seconds: duration in the header, in some formats an estimate; None if unknown.
        exact: True if `seconds` is no estimate.
        blocks: rates and samples. The rate changes if the parts of a file differ in it.
    """

    sample_rate: int
    seconds: float | None
    exact: bool
    blocks: Iterator[Block]


def display_name(source: Source) -> str:
    """Return a source's name as valid Unicode, for messages."""
    if isinstance(source, bytes):
        return f"<{len(source)} bytes>"
    if not isinstance(source, str | Path):
        source = str(getattr(source, "name", "<open file>"))
    return os.fsencode(source).decode("utf-8", "backslashreplace")


def open_source(source: Source, label: str) -> AbstractContextManager[BinaryIO]:
    """Open a source, at its start. Only regular files are opened; a pipe would block.

    Args:
        label: name for messages.
    Returns:
        a seekable file; the context closes it, unless the caller opened it.
    Raises:
        AudioError: missing, empty, or not a regular file.
    """
    if isinstance(source, str | Path):
        size, file = _open_path(Path(source), label)
    elif isinstance(source, bytes):
        size, file = len(source), cast(BinaryIO, io.BytesIO(source))
    elif source.seekable():
        size = source.seek(0, os.SEEK_END)
        source.seek(0)
        if size:
            return nullcontext(source)
        file = cast(BinaryIO, io.BytesIO())
    else:
        with disk_errors(tempfile.gettempdir()):
            file = cast(BinaryIO, tempfile.TemporaryFile())  # noqa: SIM115
            shutil.copyfileobj(source, file)
            size = file.tell()
            file.seek(0)
    if size == 0:
        file.close()
        raise AudioError(label, "empty file (0 bytes)")
    return file


def _open_path(path: Path, label: str) -> tuple[int, BinaryIO]:
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            kind = _KINDS.get(stat.S_IFMT(status.st_mode), "something else")
            raise AudioError(label, f"not a regular file, but {kind}")
        return status.st_size, path.open("rb")
    except FileNotFoundError as error:
        reason = "a link to a file that is missing" if path.is_symlink() else "no such file"
        raise AudioError(label, reason) from error
    except OSError as error:
        raise AudioError(label, error.strerror or str(error)) from error
    except ValueError as error:  # a null byte in the path
        if isinstance(error, AudioError):
            raise
        raise AudioError(label, "no such file") from error


class Slice(io.RawIOBase):
    """The bytes start … stop - 1 of an open file, as a file."""

    def __init__(self, file: BinaryIO, start: int, stop: int) -> None:
        self._file, self._start, self._size = file, start, stop - start
        self._position = 0

    def seekable(self) -> bool:
        return True

    def readable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        base = {os.SEEK_SET: 0, os.SEEK_CUR: self._position, os.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise ValueError(f"negative position {base + offset}")
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        self._file.seek(self._start + self._position)
        wanted = max(0, min(len(buffer), self._size - self._position))
        n = self._file.readinto(memoryview(buffer)[:wanted])  # type: ignore[attr-defined]
        self._position += n or 0
        return n or 0
