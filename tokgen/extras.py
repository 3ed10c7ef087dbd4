"""Import optional packages, with an error that names the missing extra."""

from __future__ import annotations

import sys
import warnings
from importlib import import_module
from typing import Any


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


def require_legacy(module: str) -> Any:
    """Import a module of the extra `eval` that needs `pkg_resources`: pyworld, resemblyzer.

    setuptools removed `pkg_resources` in version 82. Earlier versions warn about it on import;
    this hides that warning.

    Raises:
        ModuleNotFoundError: the module or `pkg_resources` is missing; the message names the fix.
    """
    if (loaded := sys.modules.get(module)) is not None:
        return loaded
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*pkg_resources")
        try:
            return require(module)
        except ModuleNotFoundError as error:
            if error.name != "pkg_resources":
                raise
            raise ModuleNotFoundError(
                f"{module} imports pkg_resources, which this setuptools no longer has: "
                "pip install 'setuptools<81'",
                name="pkg_resources",
            ) from error
