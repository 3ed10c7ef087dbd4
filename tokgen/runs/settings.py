"""Settings of recipes and of the command line: read from YAML and flags, saved, and compared."""

from __future__ import annotations

import json
import shlex
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, asdict, fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar

from jsonargparse import ArgumentError, auto_cli

from tokgen.results import short_warning
from tokgen.runs.deep_flags import split_deep, with_deep
from tokgen.runs.flags import PlainHelp, plain_error, plain_flags
from tokgen.runs.folder import versions, write_json
from tokgen.runs.interrupts import end_with_launcher, plain_errors

__all__ = ["begin_recipe", "claim_run", "command_of", "parse_settings", "save_settings"]

Settings = TypeVar("Settings")


def begin_recipe(cls: type, script: str, check: Callable[[Any], None]) -> None:
    """Check the flags of a recipe; call this before the imports that take seconds.

    From here on, warnings take one line and the process ends with its launcher.

    Args:
        cls: class of the recipe's settings.
        script: `__file__` of the recipe, which has a YAML file beside it.
        check: raises an error if a codec or corpus of the settings does not exist.
    """
    warnings.formatwarning = short_warning
    end_with_launcher()
    settings: Any = parse_settings(cls, Path(script).with_suffix(".yaml"))
    with plain_errors():
        check(settings)


def parse_settings(
    cls: type[Settings], default_config: Path, argv: Sequence[str] | None = None
) -> Settings:
    """Build a recipe's settings from YAML and flags.

    `--config FILE` replaces `default_config`. Single flags such as `--model.depth 6` change what
    was read. See `plain_flags` for how flags may be written. Without `argv`, the flags of the
    process are read.
    """
    with plain_errors():
        argv, deep = split_deep(sys.argv[1:] if argv is None else argv, cls)
        argv = plain_flags(argv, cls)
    named = any(a == "--config" or a.startswith("--config=") for a in argv)
    files = [] if named else [str(default_config)]
    with plain_errors(), _one_line(cls):
        settings = auto_cli(
            cls,
            args=argv,
            as_positional=False,
            default_config_files=files,
            formatter_class=PlainHelp,
            usage="%(prog)s [options]",
            exit_on_error=False,
        )
        return with_deep(settings, deep)


def command_of(script: str | Path, argv: Sequence[str] | None) -> str:
    """Return the command that runs a recipe with these flags; None means those of the process."""
    words = sys.argv[1:] if argv is None else argv
    return shlex.join(["accelerate", "launch", f"recipes/{Path(script).name}", *words])


@contextmanager
def _one_line(cls: type) -> Iterator[None]:
    """Raise jsonargparse's errors as a ValueError with a short message."""
    try:
        yield
    except ArgumentError as error:
        raise ValueError(f"{plain_error(str(error), cls)}; see --help") from error


def save_settings(folder: Path, settings: Any, **provenance: Any) -> None:
    """Write `settings.json`: the settings, the provenance and the versions of the libraries.

    The provenance is what else shaped the run, such as the spec of its codec.
    """
    content = {"settings": asdict(settings), **provenance, "versions": versions()}
    write_json(folder / "settings.json", content)


def claim_run(folder: Path, settings: Any, free: tuple[str, ...] = (), **provenance: Any) -> None:
    """Refuse to continue a run with settings other than those it began with.

    Settings that were added to the class after the run began count as their defaults.

    Args:
        folder: folder of the run. Nothing is checked if it has no settings.json.
        settings: settings to continue with, a dataclass.
        free: names of settings that may change, such as those used only after training. A part of
            a setting or of the provenance is named with dots: "codec.licence".
        provenance: what else must equal the arguments of `save_settings`.
    Raises:
        ValueError: a setting differs, or settings.json cannot be read.
    """
    path = folder / "settings.json"
    if not path.is_file():
        return
    try:
        saved = json.loads(path.read_text())
        began = _with_later(saved["settings"], settings)
        before = _flat({**began, **{k: saved.get(k) for k in provenance}}, free)
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{path} cannot be read ({error}): delete {folder} to start over"
        ) from error
    now = _flat(json.loads(json.dumps({**asdict(settings), **provenance})), free)
    for name in sorted(set(before) | set(now)):
        if before.get(name) != now.get(name):
            raise ValueError(
                f"{folder} holds a run with {name} = {before.get(name)!r}, not "
                f"{now.get(name)!r}: choose another name, or delete the folder to start over"
            )


def _with_later(saved: dict[str, Any], settings: Any) -> dict[str, Any]:
    """Add the defaults of the dataclass `settings` for what saved settings lack."""
    whole = dict(saved)
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.name not in saved:
            default: Any = field.default
            if field.default_factory is not MISSING:
                default = field.default_factory()
            if default is not MISSING:
                if is_dataclass(default) and not isinstance(default, type):
                    default = asdict(default)
                whole[field.name] = json.loads(json.dumps(default))
        elif is_dataclass(value) and isinstance(saved[field.name], dict):
            whole[field.name] = _with_later(saved[field.name], value)
    return whole


def _flat(content: dict[str, Any], free: tuple[str, ...], prefix: str = "") -> dict[str, Any]:
    """Flatten nested dicts to {"model.depth": 6}, without the names in `free`."""
    flat: dict[str, Any] = {}
    for name, value in content.items():
        if prefix + name in free:
            continue
        if isinstance(value, dict):
            flat |= _flat(value, free, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
