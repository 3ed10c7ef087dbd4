"""JSON that may come from anyone: bounded, cleaned, and refused with a reason.

Strings lose what no page can show (lone surrogates, control characters), numbers that JSON does
not have become None, and wrong types are named.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from tokgen.audio.files import display_name

Parsed = TypeVar("Parsed")

MAX_BYTES = 64 << 20
MAX_NUMBER = 1e100  # beyond it, a number is taken for damaged and left out
_UNSHOWABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]")
_DAMAGE = (ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError)


def parse_json(path: Path, parse: Callable[[Any], Parsed]) -> Parsed | None:
    """Read a JSON object and turn it into what `parse` makes of it; None where there is no file.

    Raises:
        ValueError: the folder, the file, what is wrong and what to do.
    """
    if not path.is_file():
        return None
    try:
        check_size(path)
        return parse(mapping(clean(json.loads(path.read_text("utf-8"))), "the file"))
    except _DAMAGE as error:
        raise damaged(path, error) from error


def check_size(path: Path) -> None:
    """Raises ValueError for a file past `MAX_BYTES`."""
    if (size := path.stat().st_size) > MAX_BYTES:
        raise ValueError(f"{size / 2**20:.0f} MB, over the limit of {MAX_BYTES >> 20} MB")


def damaged(path: Path, error: Exception) -> ValueError:
    """The error for a file that holds something else than a run writes."""
    what = f"no value {error}" if isinstance(error, KeyError) else str(error)[:200]
    return ValueError(
        f"{display_name(path.parent)}: {path.name} is damaged ({what}); expected JSON as a tokgen "
        "run writes it: run it again, or delete the file to leave it out"
    )


def clean(value: Any) -> Any:
    """A JSON value whose strings can be shown and whose numbers are finite, or None."""
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
    return _UNSHOWABLE.sub("\ufffd", text)


def mapping(value: Any, what: str) -> dict[str, Any]:
    """A JSON object; None is an empty one."""
    if value is not None and not isinstance(value, dict):
        raise TypeError(f"{what}: {type(value).__name__} where an object is expected")
    return value or {}


def items(value: Any, what: str) -> list[Any]:
    """A JSON array; None is an empty one."""
    if value is not None and not isinstance(value, list):
        raise TypeError(f"{what}: {type(value).__name__} where an array is expected")
    return value or []


def text(value: Any, default: str = "") -> str:
    """A string, or a number as one; None is the default."""
    if isinstance(value, dict | list):
        raise TypeError(f"{type(value).__name__} where a string is expected")
    return default if value is None else str(value)


def number(value: Any) -> float:
    """A number; None is NaN."""
    if isinstance(value, bool) or not isinstance(value, int | float | None):
        raise TypeError(f"{type(value).__name__} where a number is expected")
    return math.nan if value is None else float(value)
