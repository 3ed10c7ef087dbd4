"""Ctrl-C, SIGTERM and user errors in recipes."""

from __future__ import annotations

import signal
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import torch

from tokgen.results import short_warning

__all__ = ["Interrupt", "Interrupted", "plain_errors", "run_recipe"]


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
        flag = torch.tensor(float(self.raised), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum").item())


def run_recipe(main: Callable[[], int]) -> NoReturn:
    """Exit with the return value of `main`; with 130 and a hint after Ctrl-C.

    Warnings take one line.
    """
    warnings.formatwarning = short_warning
    try:
        sys.exit(main())
    except FloatingPointError as error:
        sys.exit(f"error: {error}")
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
        raise SystemExit(f"error: {error}") from error
