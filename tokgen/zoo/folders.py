"""The folders in which codecs are looked up by name."""

from __future__ import annotations

import os
from pathlib import Path

import tokgen

__all__ = ["zoo_folders"]


def zoo_folders() -> list[Path]:
    """Return the zoos that exist, in lookup order."""
    package = Path(tokgen.__file__).parent
    places = [package / "_codecs"]
    if (package.parent / "pyproject.toml").is_file():
        places.insert(0, package.parent / "codecs")
    if os.environ.get("TOKGEN_ZOO"):
        places.insert(0, Path(os.environ["TOKGEN_ZOO"]))
    return [place for place in places if place.is_dir()]
