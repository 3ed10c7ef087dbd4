"""Set-up of worker processes, and the number of cores for them."""

from __future__ import annotations

import ctypes
import gc
import multiprocessing
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from tokgen.results import short_warning

__all__ = ["begin_worker", "leave_interrupts", "one_thread", "usable_cores"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _NEVER = -1, -3, (1 << 31) - 1


def usable_cores() -> int:
    """Number of cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def leave_interrupts(worker: int) -> None:
    """Ignore Ctrl-C in a `DataLoader`'s worker: the main process saves a checkpoint and ends it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def begin_worker() -> None:
    """Set up a worker process. Call this first in the worker.

    The worker uses one thread, ignores Ctrl-C (the parent handles it), and ends with its parent.
    Its warnings take one line.
    """
    warnings.formatwarning = short_warning
    gc.freeze()  # do not collect objects inherited from the parent
    torch.set_num_threads(1)  # a forked process has no OpenMP threads
    _keep_memory()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread inside the `with` block, so that results equal a worker's."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _keep_memory() -> None:
    """Make glibc keep freed memory.

    Otherwise every layer returns its large tensors to the system and fetches new pages, which took
    a fifth of a DAC's time.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        for option in (_M_MMAP_THRESHOLD, _M_TRIM_THRESHOLD):
            mallopt(option, _NEVER)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
