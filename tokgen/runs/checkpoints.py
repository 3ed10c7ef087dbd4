"""TODO checkpoints"""

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
from tokgen.runs.folder import write_json

class Checkpoints:
    """Folders `step-<n>` under a run; the newest whole one counts, older ones are removed.

    `save` and `load` are Accelerate's `save_state` and `load_state`. A checkpoint is written
    beside and renamed, so that a kill in the middle leaves the one before.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, keep

    def steps(self) -> list[int]:
        found = self.folder.glob("step-*") if self.folder.is_dir() else []
        return sorted(int(p.name.removeprefix("step-")) for p in found if p.name[5:].isdigit())

    def path(self, step: int) -> Path:
        """Where the checkpoint of a step lies."""
        return self.folder / f"step-{step}"

    def save(
        self,
        accelerator: Any,
        step: int,
        extra: dict[str, Any] | None = None,
        add: Callable[[Path], None] | None = None,
    ) -> None:
        """Save everything Accelerate prepared, and `extra` as JSON.

        `add` writes more files to the folder that it gets; every process calls it.
        """
        target = self.path(step)
        partial = self.folder / f"partial-{step}"
        if accelerator.is_main_process and partial.exists():
            shutil.rmtree(partial)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        if add is not None:
            add(partial)
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write_json(partial / "extra.json", extra or {})
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
            for old in self.steps()[: -self.keep]:
                shutil.rmtree(self.path(old))
        accelerator.wait_for_everyone()

    def resume(self, accelerator: Any) -> tuple[int, dict[str, Any]]:
        """Load the newest checkpoint; (step, extra), or (0, {}) where there is none."""
        steps = self.steps()
        if not steps:
            return 0, {}
        folder = self.path(steps[-1])
        accelerator.load_state(str(folder))
        return steps[-1], json.loads((folder / "extra.json").read_text())
