"""Share the cells of an experiment among processes that run the same command."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tokgen.runs.locks import lock_folder
from tokgen.runs.progress import progress_bar

__all__ = ["POLL_SECONDS", "locked", "share"]

POLL_SECONDS = 5.0  # between looks at cells that other processes work on


def share(label: str, jobs: Mapping[str, tuple[Path, Callable[[], bool]]]) -> bool:
    """Do all jobs, each under the lock of its folder. Other processes may do some of them.

    Jobs must be fast if they were done before. Returns False if one was interrupted.
    """
    left = dict(jobs)
    with progress_bar(label, total=len(jobs), unit="cell") as bar:
        while left:
            began = len(left)
            for name, (folder, job) in list(left.items()):
                try:
                    with lock_folder(folder.with_name(f"{folder.name}.job")):
                        if not job():
                            return False
                except BlockingIOError:
                    continue
                del left[name]
                bar.update()
            if left and len(left) == began:
                time.sleep(POLL_SECONDS)
    return True


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder, and wait for it if another process has it."""
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(lock_folder(folder))
                break
            except BlockingIOError:
                time.sleep(POLL_SECONDS)
        yield
