"""Checks of settings and of files to write, and suggestions for mistyped names."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

__all__ = [
    "check_folder",
    "check_least",
    "check_positive",
    "check_rate",
    "check_shares",
    "check_writable",
    "closest",
]

_OMIT = {"n_codebooks": "to keep all", "workers": "for one per core"}


def check_least(settings: object, **least: float) -> None:
    """Raise ValueError if a setting is below its limit. None is allowed.

    Args:
        settings: object with the settings as attributes.
        least: limit by name of the setting.
    """
    for name, limit in least.items():
        value = getattr(settings, name)
        if value is not None and not value >= limit:
            omitted = name in _OMIT and getattr(type(settings), name, None) is None  # the default
            omit = f"; omit {name} {_OMIT[name]}" if omitted else ""
            raise ValueError(f"{name} is {value:g}, but must be at least {limit:g}{omit}")


def check_positive(settings: object, *names: str) -> None:
    """Raise ValueError if a setting is not above 0 and finite. None is allowed."""
    for name in names:
        value = getattr(settings, name)
        if value is not None and not 0 < value < math.inf:
            raise ValueError(f"{name} is {value:g}, but must be above 0 and finite")


def check_rate(settings: Any) -> None:
    """Raise ValueError if `level` or `bitrate` is not above 0 and finite, or both are given."""
    check_positive(settings, "level", "bitrate")
    if settings.level is not None and settings.bitrate is not None:
        raise ValueError(
            f"level {settings.level:g} and bitrate {settings.bitrate:g} are both given: give one"
        )


def check_shares(settings: object, *names: str) -> None:
    """Raise ValueError if a setting is not in 0..1."""
    for name in names:
        value = getattr(settings, name)
        if not 0 <= value <= 1:
            raise ValueError(f"{name} is {value:g}, but must be between 0 and 1")


def closest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean X?)" for the known word that is close to `word`, "" if none is."""
    found = get_close_matches(word, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def check_writable(
    out: str | Path,
    *,
    overwrite: bool = False,
    inputs: Iterable[str | Path] = (),
    suffixes: Sequence[str] | None = None,
) -> None:
    """Check that a local file can be written, before the work whose result it gets.

    Args:
        out: file to write.
        overwrite: allow an existing file.
        inputs: files that must never be overwritten. Links to them are recognised.
        suffixes: allowed suffixes such as ".wav", lowercase; None allows all.
    Raises:
        ValueError: `out` is an input or a folder, or has another suffix.
        FileExistsError: `out` exists, and `overwrite` is False.
        OSError: its folder cannot be created or written to.
    """
    path = Path(out)
    if _is_one_of(path, inputs):
        raise ValueError(f"{path} is an input file: give another file")
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give a file")
    if suffixes is not None and path.suffix.lower() not in suffixes:
        *most, last = suffixes
        known = f"{', '.join(most)} or {last}" if most else last
        raise ValueError(f"{path} must end in {known}")
    if os.path.lexists(path):
        if not overwrite:
            raise FileExistsError(f"{path} already exists: give another file, or set overwrite")
        if path.exists() and not path.is_file():
            raise ValueError(f"{path} is not a regular file: give another file")
    check_folder(path.parent)


def check_folder(folder: str | Path) -> None:
    """Raise an OSError that names the path if a local folder cannot be created or written to."""
    found = Path(folder).absolute()
    while not os.path.lexists(found):
        found = found.parent
    if not found.is_dir():
        raise NotADirectoryError(f"{found} is not a folder: no file can be written in it")
    try:
        tempfile.TemporaryFile(dir=found).close()
    except OSError as error:
        raise PermissionError(f"{found} cannot be written to: {error.strerror}") from error


def _is_one_of(path: Path, inputs: Iterable[str | Path]) -> bool:
    if not path.exists():
        return False
    return any(os.path.samefile(path, file) for file in inputs if os.path.exists(file))
