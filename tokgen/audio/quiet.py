"""Silence C libraries that print to stderr, as mpg123 does about damaged MP3 files."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["quiet"]


@contextmanager
def quiet() -> Iterator[None]:
    """Drop what C libraries print to stderr inside the `with` block, in all threads.

    Python's own stderr, `sys.stderr`, is not affected: this changes glibc's variable `stderr`. With
    other C libraries nothing happens.
    """
    if _stderr is None:
        yield
        return
    _stderr.value = _nowhere
    try:
        yield
    finally:
        _stderr.value = _shown


def _find_stderr() -> ctypes.c_void_p | None:
    try:
        is_glibc = (os.confstr("CS_GNU_LIBC_VERSION") or "").startswith("glibc")
    except (AttributeError, OSError, ValueError):
        return None
    return ctypes.c_void_p.in_dll(ctypes.CDLL(None), "stderr") if is_glibc else None


_stderr = _find_stderr()
_shown = None if _stderr is None else _stderr.value
_nowhere: int | None = None
if _stderr is not None:
    _fopen = ctypes.CDLL(None).fopen
    _fopen.restype = ctypes.c_void_p
    _nowhere = _fopen(os.devnull.encode(), b"we") or _shown
