"""Flush files to the disk, and explain errors of the disk."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

__all__ = ["FULL", "disk_errors", "flush"]

FULL = {
    errno.ENOSPC: "no space is left on the disk; make room",
    errno.EDQUOT: "the disk quota is used up; delete files or raise the quota",
    errno.EFBIG: "the file would exceed the largest size allowed; raise the limit (ulimit -f)",
    errno.EIO: "writing failed, perhaps because the disk is full; make room or use another disk",
}
_SAFETENSORS = re.compile(r"\(os error (\d+)\)|code: (\d+)")
_AT_PATH = re.compile(r'at path "([^"]+)"')
_TORCH = re.compile(r"PytorchStreamWriter|unexpected pos|iostream error")


@contextmanager
def disk_errors(path: str | Path, then: str = "run the same command again") -> Iterator[None]:
    """Raise errors of a full disk or a deleted folder as an OSError that says what to do.

    Safetensors, torch and pyarrow each report a full disk in their own way, mostly without a path.
    All other errors pass.

    Args:
        path: file or folder that is written inside the `with` block.
        then: what to do after the fix.
    Raises:
        OSError: the disk is full, or the folder was deleted; one line, with its `errno`.
    """
    try:
        yield
    except Exception as error:
        found = _explain(error, Path(path), then)
        if found is None or str(found) == str(error):
            raise
        raise found from error


def flush(path: Path) -> None:
    """Wait until a file or folder is written to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _explain(error: BaseException, path: Path, then: str) -> OSError | None:
    code, named = _code_of(error), getattr(error, "filename", None)
    where = named if isinstance(named, str) and named else path
    if code in FULL:
        if str(error).endswith(then):  # explained by an inner block
            return None
        return _os_error(code, f"{where}: {FULL[code]}, then {then}")
    if named is None and (found := _AT_PATH.search(str(error))):
        named = found[1]
    if code == errno.ENOENT and isinstance(named, str):
        parents = [p for p in Path(named).parents if p == path or path in p.parents]
        gone = [p for p in parents if not p.exists()]
        if gone:
            text = f"{gone[-1]} was deleted while it was in use: {then} to start over"
            return _os_error(errno.ENOENT, text)
    return None


def _code_of(error: BaseException) -> int | None:
    """Return the error number of a failed write; None for other errors."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno
    if type(error).__name__ == "SafetensorError" and (found := _SAFETENSORS.search(str(error))):
        return int(found[1] or found[2])
    if isinstance(error, RuntimeError) and _TORCH.search(str(error)):
        return errno.EIO  # torch does not tell
    return None


def _os_error(code: int, text: str) -> OSError:
    error = FileNotFoundError(text) if code == errno.ENOENT else OSError(text)
    error.errno = code
    return error
