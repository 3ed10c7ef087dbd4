"""Lock a folder, so that two runs do not write to it at the same time."""

from __future__ import annotations

import errno
import os
import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from tokgen.disk import disk_errors

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["LOCK", "lock_folder"]

LOCK = ".lock"
_TAKEN = (errno.EAGAIN, errno.EACCES)
_held: set[tuple[int, str]] = set()  # process and folder; a forked process has no lock


@contextmanager
def lock_folder(folder: str | Path) -> Iterator[None]:
    """Lock a folder inside the `with` block, and make it if it does not exist.

    The lock is a POSIX lock on the file `.lock`. The system releases it when the process ends in
    any way, and worker processes do not inherit it. Of the processes that a launcher started, only
    the first locks. A process may lock a folder again that it holds. On a file system without
    locks this warns and goes on.

    Errors of a full disk or a deleted folder inside the block name the path, as in `disk_errors`.

    Raises:
        BlockingIOError: another process has the lock; the message names it.
        OSError: the folder cannot be written.
    """
    folder = Path(folder)
    key = (os.getpid(), os.path.realpath(folder))
    if int(os.environ.get("RANK") or 0) or key in _held:
        with disk_errors(folder):
            yield
        return
    with disk_errors(folder):
        is_new = not folder.exists()
        folder.mkdir(parents=True, exist_ok=True)
        handle = _lock(folder / LOCK, folder)
        _held.add(key)
        try:
            yield
        finally:
            _held.discard(key)
            (folder / LOCK).unlink(missing_ok=True)
            if handle is not None:
                os.close(handle)
            if is_new:
                with suppress(OSError):  # not empty
                    folder.rmdir()


def _lock(path: Path, folder: Path) -> int | None:
    """Return the handle of the locked file; None if the file system has no locks."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            if fcntl is None:
                raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = _owner(handle) if error.errno in _TAKEN else ""
            os.close(handle)
            if owner:
                raise BlockingIOError(
                    f"{folder} is in use by {owner}: wait until it ends, or choose another folder"
                ) from error
            warnings.warn(
                f"{folder} cannot be locked ({error.strerror}): make sure that no other run writes "
                "there",
                stacklevel=4,
            )
            return None
        if _is_at(handle, path):
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
            return handle
        os.close(handle)  # another process deleted the file before it was locked


def _owner(handle: int) -> str:
    return os.pread(handle, 200, 0).decode(errors="replace") or "another process"


def _is_at(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.stat())
    except FileNotFoundError:
        return False
