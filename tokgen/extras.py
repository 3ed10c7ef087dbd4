"""Import optional packages, with an error that names the missing extra."""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["require"]


def require(module: str, extra: str = "eval") -> Any:
    """Import a module that an extra installs.

    Raises:
        ModuleNotFoundError: the module is missing; the message names the extra.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != module.split(".")[0]:
            raise
        raise ModuleNotFoundError(
            f"{module} is not installed: pip install 'tokgen[{extra}]'", name=module
        ) from error
