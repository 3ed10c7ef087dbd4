"""What every recipe needs around its loop: settings, run folders, checkpoints, interrupts."""

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

LIBRARIES = ("torch", "torchaudio", "transformers", "accelerate", "datasets", "x-transformers")






def versions() -> dict[str, str]:
    """Versions of tokgen, Python and the libraries that shape results."""
    found = {"tokgen": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a kill leaves the old file or the new one, never half.

    Numbers that JSON does not have (NaN, infinity) become null.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    text = json.dumps(_finite(content), indent=2, default=str, allow_nan=False)
    partial.write_text(text + "\n")
    partial.replace(path)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def clear_results(folder: Path, names: tuple[str, ...]) -> None:
    """Remove what an earlier plan under this name made, so that nothing of it stands beside this.

    Args:
        folder: of the run; one that holds no settings.json is no run and stays as it is.
        names: files and folders below it; what is not named is never touched.
    """
    if not (folder / "settings.json").is_file():
        return
    for path in (folder / name for name in names):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)










def read_history(path: Path) -> list[dict[str, Any]]:
    """The lines of a history file; a line cut off by a kill is dropped."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def append_history(path: Path, kept: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Rewrite the history with the lines to keep; returns what appends one more."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(path.name + ".partial")
    partial.write_text("".join(json.dumps(row) + "\n" for row in kept))
    partial.replace(path)

    def append(row: dict[str, Any]) -> None:
        with path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    return append










