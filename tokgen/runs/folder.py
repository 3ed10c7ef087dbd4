"""Files of a run's folder: JSON, history lines, results to delete, library versions."""

from __future__ import annotations

import json
import os
import platform
import shutil
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tokgen import __version__
from tokgen.disk import disk_errors
from tokgen.results import to_json
from tokgen.runs.locks import LOCK

__all__ = [
    "LIBRARIES",
    "append_history",
    "check_run_folder",
    "clear_results",
    "read_history",
    "versions",
    "write_json",
]

LIBRARIES = ("torch", "torchaudio", "transformers", "accelerate", "datasets", "x-transformers")


def versions() -> dict[str, str]:
    """Versions of tokgen, Python and the libraries that results depend on."""
    found = {"tokgen": __version__, "python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically: a killed process leaves the old file or the new one.

    NaN and infinity become null.

    Raises:
        OSError: the disk is full; the message names the path.
    """
    _replace(path, to_json(content) + "\n")


def _replace(path: Path, text: str) -> None:
    """Write a file completely or not at all, and wait until it is on the disk."""
    partial = path.with_name(path.name + ".partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with partial.open("w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def check_run_folder(folder: Path) -> None:
    """Raise ValueError if a folder holds something else than a run."""
    if not folder.exists() or (folder / "settings.json").is_file():
        return
    if not folder.is_dir() or any(p.name != LOCK for p in folder.iterdir()):
        raise ValueError(f"{folder} exists and is not a run's folder: choose another one")


def clear_results(folder: Path, names: tuple[str, ...]) -> None:
    """Delete the results of an earlier plan from a run's folder.

    Args:
        folder: of the run. Nothing is deleted if it has no settings.json.
        names: files and folders in it to delete; all others stay.
    """
    if not (folder / "settings.json").is_file():
        return
    for path in (folder / name for name in names):
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)


def read_history(path: Path) -> list[dict[str, Any]]:
    """Read the lines of a JSON Lines file. A last line that a kill cut off is dropped."""
    rows = []
    for line in path.read_text().splitlines() if path.is_file() else []:
        try:
            rows.append(json.loads(line))
        except json.JSONDecodeError:
            break
    return rows


def append_history(path: Path, kept: list[dict[str, Any]]) -> Callable[[dict[str, Any]], None]:
    """Rewrite a JSON Lines file with the lines in `kept`.

    Returns:
        a function that appends one more line.
    """
    _replace(path, "".join(json.dumps(row) + "\n" for row in kept))

    def append(row: dict[str, Any]) -> None:
        with disk_errors(path), path.open("a") as file:
            file.write(json.dumps(row) + "\n")

    return append
