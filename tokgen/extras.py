"""Import what an extra brings, or say which extra is missing."""

from __future__ import annotations

from importlib import import_module
from typing import Any


def require(module: str, extra: str = "eval") -> Any:
    """The module, or ModuleNotFoundError naming the extra that brings it."""
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ModuleNotFoundError(
            f"{module} is not installed: pip install 'tokgen[{extra}]'", name=module
        ) from error
