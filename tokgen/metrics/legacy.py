"""Import packages of the eval extra that still ask setuptools for their own version."""

from __future__ import annotations

import sys
import warnings
from typing import Any

from tokgen.extras import require


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
