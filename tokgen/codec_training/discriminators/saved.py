"""Find saved discriminators. Imports no torch, so that settings are read fast."""

from __future__ import annotations

from pathlib import Path

from tokgen.nn.hub import CONFIG
from tokgen.zoo.names import find_in_zoo

__all__ = ["find_discriminator"]


def find_discriminator(source: str | None, codec: str) -> Path | None:
    """Find the folder of a saved discriminator.

    Args:
        source: a folder, the name of a codec in the zoo that has one, "auto", or None.
        codec: name in the zoo, or a folder. "auto" looks for `discriminator/` in it and next to it.
    Returns:
        None if `source` is None, or if it is "auto" and there is none.
    Raises:
        FileNotFoundError: the given folder has no discriminator.
    """
    if source is None:
        return None
    named = find_in_zoo(source)
    places = [Path(source)] if named is None else [named / "discriminator", Path(source)]
    if source == "auto":
        folder = find_in_zoo(codec) or Path(codec)
        places = [folder / "discriminator", folder.parent / "discriminator"]
    for place in places:
        if (place / CONFIG).is_file():
            return place
    if source == "auto":
        return None
    raise FileNotFoundError(
        f"start_discriminator = {source!r} has no {CONFIG}: give a folder that train_codec.py "
        'saved, the name of a codec that has one, "auto", or null for a new one'
    )
