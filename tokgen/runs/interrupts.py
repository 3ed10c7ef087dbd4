"""TODO interrupts"""

from __future__ import annotations

import json
import math
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn, TypeVar
import numpy as np
import torch
from jsonargparse import auto_cli
from tokgen import __version__

class Interrupt:
    """Turns Ctrl-C and SIGTERM into a flag, so that a loop ends after its step with a checkpoint.

    Made right before the loop and released after it; a second Ctrl-C ends at once.
    """

    def __init__(self) -> None:
        self.raised = False
        numbers = (signal.SIGINT, signal.SIGTERM)
        self._before = {n: signal.signal(n, self._note) for n in numbers}

    def release(self) -> None:
        """Give signals back to whoever had them."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.raised:
            raise KeyboardInterrupt
        self.raised = True

    def agreed(self, accelerator: Any) -> bool:
        """Whether any process was interrupted; every process must ask at the same step."""
        if accelerator.num_processes == 1:
            return self.raised
        flag = torch.tensor(float(self.raised), device=accelerator.device)
        return bool(accelerator.reduce(flag, "sum").item())


def run_recipe(main: Callable[[], int]) -> NoReturn:
    """Exit with what `main` returns; Ctrl-C outside its training loop says how to go on."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        print("\ninterrupted: the same command goes on from what is saved", file=sys.stderr)
        sys.exit(130)


@contextmanager
def plain_errors() -> Iterator[None]:
    """Around a recipe's preparations: wrong settings or data end it without a traceback."""
    try:
        yield
    except (ValueError, OSError, ModuleNotFoundError) as error:
        raise SystemExit(f"error: {error}") from error
