"""Worker processes: how many there may be, and how each of them begins and ends."""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import threading

import torch


def usable_cores() -> int:
    """Cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def begin_worker() -> None:
    """To be called first in a worker: one thread, Ctrl-C left to the parent, no life after it."""
    gc.freeze()  # what the parent left is the parent's to collect
    torch.set_num_threads(1)  # OpenMP's threads did not come along
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
