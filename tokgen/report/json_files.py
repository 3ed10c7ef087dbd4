"""Read JSON files from untrusted sources, with limits and with errors that say what to do.

Control characters, marks of text direction and lone surrogates in strings are replaced. NaN,
infinite and huge numbers become None.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tokgen.audio.files import display_name

__all__ = [
    "MAX_BYTES",
    "MAX_NUMBER",
    "check_size",
    "clean",
    "clean_text",
    "damaged",
    "items",
    "mapping",
    "number",
    "parse_json",
    "text",
]

Parsed = TypeVar("Parsed")

MAX_BYTES = 64 << 20
MAX_NUMBER = 1e100  # larger numbers count as damaged and become None
_UNSHOWABLE = re.compile(
    "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f"  # control characters
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # marks that change the direction of text
    "\ud800-\udfff\ufffe\uffff]"
)
_DAMAGE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


def parse_json(path: Path, parse: Callable[[Any], Parsed]) -> Parsed | None:
    """Read a JSON object and pass it to `parse`.

    Returns:
        the result of `parse`, or None if there is no file.
    Raises:
        ValueError: the file is damaged; the message names folder, file, fault and fix.
    """
    if not path.is_file():
        return None
    try:
        check_size(path)
        return parse(mapping(clean(json.loads(path.read_text("utf-8"))), "the file"))
    except _DAMAGE as error:
        raise damaged(path, error) from error


def check_size(path: Path) -> None:
    """Raise a ValueError if a file is larger than `MAX_BYTES`."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{size / 2**20:.0f} MB, over the limit of {MAX_BYTES >> 20} MB")


def damaged(path: Path, error: Exception) -> ValueError:
    """Make the error for a file that differs from what a run writes."""
    what = f"no value {error}" if isinstance(error, KeyError) else str(error)[:200]
    return ValueError(
        f"{display_name(path.parent)}: {path.name} is damaged ({what}); expected JSON as a tokgen "
        "run writes it: run it again, or delete the file to leave it out"
    )


def clean(value: Any) -> Any:
    """Return a JSON value with printable strings, and None for numbers that are not finite."""
    if isinstance(value, str):
        return clean_text(value)
    if isinstance(value, dict):
        return {clean_text(k): clean(v) for k, v in value.items()}
    if isinstance(value, list):
        return [clean(v) for v in value]
    if isinstance(value, int | float) and not -MAX_NUMBER < value < MAX_NUMBER:
        return None
    return value


def clean_text(text: str) -> str:
    """Replace characters that a page cannot show, or that change other text, by U+FFFD."""
    return _UNSHOWABLE.sub("\ufffd", text)


def mapping(value: Any, what: str) -> dict[str, Any]:
    """Check that a value is a JSON object; None counts as an empty one."""
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"{what}: expected an object, not {type(value).__name__}")
    return value or {}


def items(value: Any, what: str) -> list[Any]:
    """Check that a value is a JSON array; None counts as an empty one."""
    if value is not None and not isinstance(value, list):
        raise TypeError(f"{what}: expected an array, not {type(value).__name__}")
    return value or []


def text(value: Any, default: str = "") -> str:
    """Return a string or number as a string, and `default` for None."""
    if isinstance(value, dict | list):
        raise TypeError(f"expected a string, not {type(value).__name__}")
    return default if value is None else str(value)


def number(value: Any) -> float:
    """Return a number as a float, and NaN for None."""
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError(f"expected a number, not {type(value).__name__}")
    return math.nan if value is None else float(value)
