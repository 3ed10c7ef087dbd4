"""Import what an extra brings, or say which extra is missing."""

from __future__ import annotations

import sys
import warnings
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


def require_legacy(module: str) -> Any:
    """`require`, for pyworld and resemblyzer (webrtcvad), which import `pkg_resources`.

    setuptools 80 and before bring it and warn that it will go, which is silenced here;
    setuptools 82 and later do without it.

    Raises:
        ModuleNotFoundError: the module or `pkg_resources` is missing, naming the fix.
    """
    if (ready := sys.modules.get(module)) is not None:
        return ready
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return require(module)
        except ModuleNotFoundError as error:
            if error.name != "pkg_resources":
                raise
            raise ModuleNotFoundError(
                f"{module} imports pkg_resources, which this setuptools has no more: "
                "pip install 'setuptools<81'",
                name="pkg_resources",
            ) from error
