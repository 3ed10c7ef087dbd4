"""Ctrl-C, SIGTERM, a killed launcher and errors in recipes."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

from tokgen.results import one_line, short_warning

__all__ = [
    "LAUNCHER_SECONDS",
    "Interrupt",
    "Interrupted",
    "end_with_launcher",
    "fail",
    "plain_errors",
    "run_recipe",
]

LAUNCHER_SECONDS = 1.0  # between looks at the launcher
_LAUNCHED = ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID")  # what launchers set
_watched = False


class Interrupted(KeyboardInterrupt):
    """A training ended early because of Ctrl-C or SIGTERM, after it saved a checkpoint."""


class Interrupt:
    """Turns Ctrl-C and SIGTERM into a flag, so a training loop can save a checkpoint and end.

    Create it right before the loop and release it after the loop. A second signal raises
    KeyboardInterrupt at once.
    """

    def __init__(self) -> None:
        self.raised = False
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {n: signal.signal(n, self._note) for n in numbers}

    def release(self) -> None:
        """Restore the previous signal handlers."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.raised:
            raise KeyboardInterrupt
        self.raised = True

    def agreed(self, accelerator: Any) -> bool:
        """True if any process was interrupted. All processes must call this at the same step."""
        if accelerator.num_processes == 1:
            return self.raised
        import torch

        flag = torch.tensor(float(self.raised), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum").item())


def end_with_launcher() -> None:
    """Send SIGTERM to this process when its launcher is gone, for example after `kill -9`.

    A training loop then saves a checkpoint and ends. This does nothing in a process that neither
    `accelerate launch` nor `torchrun` started, so that a recipe under nohup goes on. Further calls
    do nothing.
    """
    global _watched
    if _watched or not any(name in os.environ for name in _LAUNCHED):
        return
    _watched, launcher = True, os.getppid()

    def watch() -> None:
        while os.getppid() == launcher:
            time.sleep(LAUNCHER_SECONDS)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()


def run_recipe(main: Callable[[], int]) -> NoReturn:
    """Exit with the return value of `main`; with 130 and a hint after Ctrl-C.

    Warnings take one line, and so do errors of files and disks and a training that diverges. The
    process ends with its launcher.
    """
    warnings.formatwarning = short_warning
    end_with_launcher()
    try:
        sys.exit(main())
    except (FloatingPointError, OSError) as error:
        fail(error)
    except Interrupted:  # the training printed the hint
        sys.exit(130)
    except KeyboardInterrupt:
        print("\ninterrupted: run the same command again to continue", file=sys.stderr)
        sys.exit(130)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Exit with a one-line message on wrong settings or data, without a traceback."""
    try:
        yield
    except (ValueError, OSError, ModuleNotFoundError) as error:
        fail(error)


def fail(error: Exception) -> NoReturn:
    """Exit with a one-line message.

    Under `torchrun`, and `accelerate launch` with several processes, the first process prints it
    and the launcher repeats it at the end of its own report.
    """
    message = f"error: {one_line(str(error)) or type(error).__name__}"
    path = os.environ.get("TORCHELASTIC_ERROR_FILE")
    if path:  # of this process, as torch.distributed.elastic writes and reads it
        told = {"py_callstack": message, "timestamp": str(int(time.time()))}
        content = {"message": {"message": message, "extraInfo": told}}
        with suppress(OSError):
            Path(path).write_text(json.dumps(content))
    if path and int(os.environ.get("RANK") or 0):
        raise SystemExit(1) from error
    raise SystemExit(message) from error
