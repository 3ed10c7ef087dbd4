"""TODO settings"""

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
from tokgen.runs.folder import versions, write_json
from tokgen.runs.interrupts import plain_errors

Settings = TypeVar("Settings")


def parse_settings(
    cls: Callable[..., Settings],
    default_config: Path,
    argv: list[str] | None = None,
    *,
    repeated: str | None = None,
) -> Settings:
    """Build the frozen dataclass `cls` from YAML and flags.

    `--config FILE` replaces `default_config`, so that a file says all it wants; single flags such
    as `--model.depth 6` change what was read. A list named `repeated` may be given as its flag
    several times.
    """
    argv = sys.argv[1:] if argv is None else argv
    if repeated:
        argv = _gather(argv, f"--{repeated}")
    named = any(a == "--config" or a.startswith("--config=") for a in argv)
    files = [] if named else [str(default_config)]
    with plain_errors():
        return auto_cli(cls, args=argv, as_positional=False, default_config_files=files)


def _gather(argv: list[str], flag: str) -> list[str]:
    """`--codec a --codec=b` as `--codec ["a", "b"]`; a JSON list stays as it is."""
    rest, found = [], []
    waiting = False
    for word in argv:
        if waiting:
            found.append(word)
        elif word.startswith(f"{flag}="):
            found.append(word.partition("=")[2])
        elif word != flag:
            rest.append(word)
        waiting = not waiting and word == flag
    if waiting:
        rest.append(flag)  # without a value: the parser says so
    if len(found) == 1 and found[0].startswith("["):
        return [*rest, flag, found[0]]
    return [*rest, flag, json.dumps(found)] if found else rest


def save_settings(folder: Path, settings: Any, **provenance: Any) -> None:
    """Write `settings.json`: resolved settings, provenance (codec hash …), library versions."""
    content = {"settings": asdict(settings), **provenance, "versions": versions()}
    write_json(folder / "settings.json", content)


def claim_run(folder: Path, settings: Any, free: tuple[str, ...] = (), **provenance: Any) -> None:
    """Refuse to continue a run under other settings than it was begun with.

    Args:
        folder: of the run; nothing is checked while it holds no settings.json.
        settings: the frozen dataclass.
        free: names of settings that may change (those that act after training).
        provenance: what else must be as `save_settings` was told (a codec's weight hash …).
    Raises:
        SystemExit: naming the setting, both values and the way out.
    """
    path = folder / "settings.json"
    if not path.is_file():
        return
    try:
        saved = json.loads(path.read_text())
        before = _flat({**saved["settings"], **{k: saved.get(k) for k in provenance}}, free)
    except (ValueError, KeyError, TypeError) as error:
        raise SystemExit(
            f"error: {path} cannot be read ({error}): delete {folder} to start over"
        ) from error
    now = _flat(json.loads(json.dumps({**asdict(settings), **provenance})), free)
    for name in sorted(set(before) | set(now)):
        if before.get(name) != now.get(name):
            raise SystemExit(
                f"error: {folder} holds a run with {name} = {before.get(name)!r}, not "
                f"{now.get(name)!r}: give another --name, or delete the folder to start over"
            )


def _flat(content: dict[str, Any], free: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """Nested dicts as {"model.depth": 6}, without the names in `free`."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if name in free:
            continue
        if isinstance(value, dict):
            flat |= _flat(value, (), f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
