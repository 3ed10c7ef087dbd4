"""Find the generator of a codec: a token model in the folder `generator` of the codec's folder.

A model's name is the name of such a codec, the folder of a model or of the run that trained it, or
the hub id of a codec or model. A model that speaks has its text model in the folder `text`.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

from tokgen.nn.hub import CONFIG, resolve_folder
from tokgen.runs.checks import closest
from tokgen.zoo.names import find_in_zoo, is_hub_id, split_kbps, zoo_names

__all__ = ["FOLDER", "RUN", "TEXT", "FoundGenerator", "check_generator", "find_generator"]

FOLDER = "generator"
TEXT = "text"  # folder of the text model in that of the masked transformer
RUN = "model"  # folder of the model in that of a run


class FoundGenerator(NamedTuple):
    """A model that was found by name.

    Attributes:
        folder: folder of the model.
        codec: name of the codec beside it; None for a model in a folder of its own.
    """

    folder: Path
    codec: str | Path | None


def check_generator(name: str | Path, *, speaks: bool = False) -> None:
    """Check the name of a model without loading it. A hub id is not looked up.

    Args:
        name, speaks: as for `find_generator`.
    Raises:
        FileNotFoundError: no codec or model of this name, or a codec without a generator, or the
            model does not speak.
    """
    if find_in_zoo(str(name)) is not None or Path(name).is_dir():
        find_generator(name, speaks=speaks)
    elif not is_hub_id(split_kbps(name)[0]):
        known = _with_generator()
        raise FileNotFoundError(
            f"no model {str(name)!r}{closest(str(name), known)}: give the folder of a model, a hub "
            f"id, or a codec with a generator ({', '.join(known) or 'none is installed'})"
        )


def find_generator(name: str | Path, *, speaks: bool = False) -> FoundGenerator:
    """Find a model by name. A hub id is downloaded.

    Args:
        name: name of a codec of the zoo, also with a bitrate; a folder; or a hub id "owner/name".
            If the folder has a folder `generator`, the model in it is meant; in the folder of a
            run, the model that the run trained.
        speaks: the model has to speak text.
    Raises:
        FileNotFoundError: no codec, model or hub model of this name, or a codec without a
            generator, or the model has no text model.
    """
    found = _find(name)
    if speaks and not (found.folder / TEXT / CONFIG).is_file():
        raise FileNotFoundError(
            f"the model in {found.folder} does not speak: it has no text model in {TEXT}/; give "
            "the folder of a run of `recipes/tts_masked.py`"
        )
    return found


def _find(name: str | Path) -> FoundGenerator:
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
    plain = Path(split_kbps(name)[0])
    if not (plain / CONFIG).is_file() and (plain / RUN / CONFIG).is_file():
        return FoundGenerator(plain / RUN, None)
    folder = resolve_folder(split_kbps(name)[0])
    if (folder / FOLDER / CONFIG).is_file():
        return FoundGenerator(folder / FOLDER, name)
    return FoundGenerator(folder, None)


def _with_generator() -> list[str]:
    """Return the names of the zoo's codecs that have a generator."""
    folders = {name: find_in_zoo(name) for name in zoo_names()}
    return [n for n, f in folders.items() if f is not None and (f / FOLDER / CONFIG).is_file()]
