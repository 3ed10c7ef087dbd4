"""Find the generator of a codec: a token model in the folder `generator` of the codec's folder.

A model's name is the name of such a codec, the folder of a model, or a hub id of either.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tokgen.nn.hub import CONFIG, resolve_folder
from tokgen.runs.checks import closest
from tokgen.zoo.names import find_in_zoo, is_hub_id, split_kbps, zoo_names

__all__ = ["FOLDER", "FoundGenerator", "check_generator", "find_generator"]

FOLDER = "generator"


class FoundGenerator(NamedTuple):
    """A model that was found by name.

    Attributes:
        folder: folder of the model.
        codec: name of the codec beside it; None for a model in a folder of its own.
    """

    folder: Path
    codec: str | Path | None


def check_generator(name: str | Path) -> None:
    """Check the name of a model without loading it. A hub id is not looked up.

    Raises:
        FileNotFoundError: no codec or model of this name, or a codec without a generator.
    """
    if find_in_zoo(str(name)) is not None or Path(name).is_dir():
        find_generator(name)
    elif not is_hub_id(split_kbps(name)[0]):
        known = _with_generator()
        raise FileNotFoundError(
            f"no model {str(name)!r}{closest(str(name), known)}: give the folder of a model, a hub "
            f"id, or a codec with a generator ({', '.join(known) or 'none is installed'})"
        )


def find_generator(name: str | Path) -> FoundGenerator:
    """Find a model by name. A hub id is downloaded.

    Args:
        name: name of a codec of the zoo, also with a bitrate; a folder; or a hub id "owner/name".
            If the folder has a folder `generator`, the model in it is meant.
    Raises:
        FileNotFoundError: no codec, model or hub model of this name, or a codec without a
            generator.
    """
    if name == "":
        raise FileNotFoundError("no model '': give the folder of a model, a hub id, or a codec")
    zoo = find_in_zoo(str(name))
    if zoo is not None:
        if not (zoo / FOLDER / CONFIG).is_file():
            known = _with_generator()
            raise FileNotFoundError(
                f"the codec {name} has no generator beside it (those that have one: "
                f"{', '.join(known) or 'none'}): give the folder of a model, which "
                "`recipes/vocode_mfcc.py` trains"
            )
        return FoundGenerator(zoo / FOLDER, name)
    plain = split_kbps(name)[0]
    folder = resolve_folder(plain)
    if (folder / FOLDER / CONFIG).is_file():
        return FoundGenerator(folder / FOLDER, name)
    return FoundGenerator(folder, None)


def _with_generator() -> list[str]:
    """Return the names of the zoo's codecs that have a generator."""
    folders = {name: find_in_zoo(name) for name in zoo_names()}
    return [n for n, f in folders.items() if f is not None and (f / FOLDER / CONFIG).is_file()]
