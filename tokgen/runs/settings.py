"""Settings of recipes and of the command line: read from YAML and flags, saved, and compared."""

from __future__ import annotations

import json
import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

from jsonargparse import auto_cli

from tokgen.runs.folder import versions, write_json

Settings = TypeVar("Settings")

BOOLS = ("true", "false", "yes", "no", "on", "off")  # as YAML 1.1 writes them, in any case


def parse_settings(
    cls: type[Settings], default_config: Path, argv: Sequence[str] | None = None
) -> Settings:
    """Build a recipe's settings from YAML and flags.

    `--config FILE` replaces `default_config`. Single flags such as `--model.depth 6` change what
    was read. See `plain_flags` for how flags may be written. Without `argv`, the flags of the
    process are read.
    """
    from tokgen.runs.interrupts import plain_errors  # imports torch, which `plain_flags` does not

    argv = plain_flags(sys.argv[1:] if argv is None else argv, cls)
    named = any(a == "--config" or a.startswith("--config=") for a in argv)
    files = [] if named else [str(default_config)]
    with plain_errors():
        return auto_cli(cls, args=argv, as_positional=False, default_config_files=files)


def plain_flags(argv: Sequence[str], cls: type) -> list[str]:
    """Rewrite flags in the form that jsonargparse reads.

    - `--batch-size 4` becomes `--batch_size 4`.
    - `--phase` without a value becomes `--phase=true` if `cls` has a bool of this name.
    - `--codec a --codec b` becomes `--codec ["a", "b"]` if `cls` has a list of strings of this
      name. A JSON list that is given once stays as it is.
    """
    kinds = {f"--{name}": kind for name, kind in get_type_hints(cls).items()}
    rest: list[str] = []
    lists: dict[str, list[str]] = {}
    words = deque(argv)
    while words:
        word = words.popleft()
        if word == "--":
            return [*rest, *_joined(lists), word, *words]
        if not word.startswith("--"):
            rest.append(word)
            continue
        flag, equals, value = word.partition("=")
        flag = "--" + flag[2:].replace("-", "_")
        kind = kinds.get(flag)
        if kind == list[str] and (equals or (words and not words[0].startswith("--"))):
            lists.setdefault(flag, []).append(value if equals else words.popleft())
        elif kind is bool and not equals and (not words or words[0].lower() not in BOOLS):
            rest.append(f"{flag}=true")
        else:
            rest.append(flag + equals + value)
    return [*rest, *_joined(lists)]


def _joined(lists: dict[str, list[str]]) -> list[str]:
    words = []
    for flag, values in lists.items():
        whole = len(values) == 1 and values[0].startswith("[")
        words += [flag, values[0] if whole else json.dumps(values)]
    return words


def save_settings(folder: Path, settings: Any, **provenance: Any) -> None:
    """Write `settings.json`: the settings, the provenance and the versions of the libraries.

    The provenance is what else shaped the run, such as the spec of its codec.
    """
    content = {"settings": asdict(settings), **provenance, "versions": versions()}
    write_json(folder / "settings.json", content)


def claim_run(folder: Path, settings: Any, free: tuple[str, ...] = (), **provenance: Any) -> None:
    """Refuse to continue a run with settings other than those it began with.

    Args:
        folder: folder of the run. Nothing is checked if it has no settings.json.
        settings: settings to continue with, a dataclass.
        free: names of settings that may change, such as those used only after training.
        provenance: what else must equal the arguments of `save_settings`.
    Raises:
        SystemExit: a setting differs, or settings.json cannot be read.
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
    """Flatten nested dicts to {"model.depth": 6}, without the names in `free`."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if name in free:
            continue
        if isinstance(value, dict):
            flat |= _flat(value, (), f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
