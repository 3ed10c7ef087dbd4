"""Checks of settings, and suggestions for mistyped names."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = ["check_least", "closest"]


def check_least(settings: object, **least: float) -> None:
    """Raise ValueError if a setting is below its limit. None is allowed.

    Args:
        settings: object with the settings as attributes.
        least: limit by name of the setting.
    """
    for name, limit in least.items():
        value = getattr(settings, name)
        if value is not None and value < limit:
            raise ValueError(f"{name} is {value:g}, but must be at least {limit:g}")


def closest(word: str, known: Iterable[str]) -> str:
    """Return " (did you mean X?)" for the known word that is close to `word`, "" if none is."""
    found = get_close_matches(word, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""
