"""Check what a dataset that `save_to_disk` wrote names, before `datasets` opens it.

`datasets` opens any file that `state.json` or `dataset_dict.json` names.
"""

from __future__ import annotations

import json
import os
import posixpath
from pathlib import Path
from typing import Any

from tokgen.audio.files import display_name
from tokgen.corpus.entries import shorten
from tokgen.corpus.links import FIX, is_inside, roots_of, why_unreadable
from tokgen.corpus.remote import RemoteFile
from tokgen.storage import StoreError, find_filesystem

__all__ = ["LARGEST_JSON", "SAVED", "check_saved"]

SAVED = ("dataset_dict.json", "state.json")  # either is in the folder of a saved dataset
LARGEST_JSON = 16 << 20  # bytes; a real one has some thousand


def check_saved(location: Path | str, *, follow_links: bool) -> None:
    """Check the files that a saved dataset names.

    Args:
        location: path or URL of the folder.
        follow_links: accept names and links that lead out of the folder.
    Raises:
        ValueError: a file is missing or damaged, or leads out of the folder. The message names it.
        StoreError: the store does not answer.
    """
    folders = [""] if _exists(location, "state.json") else []
    if _exists(location, "dataset_dict.json"):
        splits = _read(location, "dataset_dict.json", "", follow_links).get("splits")
        if not isinstance(splits, list) or not all(isinstance(name, str) for name in splits):
            raise ValueError(
                f"{_shown(location, 'dataset_dict.json')} is damaged: it has no splits"
            )
        folders += splits
    for folder in folders:
        by = "dataset_dict.json" if folder else ""
        name = posixpath.join(folder, "state.json")
        state = _read(location, name, by, follow_links)
        _read(location, posixpath.join(folder, "dataset_info.json"), by, follow_links)
        files = state.get("_data_files")
        if not isinstance(files, list) or not all(
            isinstance(file, dict) and isinstance(file.get("filename"), str) for file in files
        ):
            raise ValueError(f"{_shown(location, name)} is damaged: it lists no data files")
        for file in files:
            _check(location, posixpath.join(folder, file["filename"]), name, follow_links)


def _exists(location: Path | str, name: str) -> bool:
    if isinstance(location, Path):
        return os.path.lexists(location / name)
    filesystem, path = find_filesystem(f"{location}/{name}")
    return bool(filesystem.isfile(path))


def _check(location: Path | str, name: str, by: str, follow_links: bool) -> None:
    """Check a name in the folder; `by` is the file that has it."""
    whole = f"{_shown(location, by)} names {shorten(name)!r}" if by else _shown(location, name)
    leaves = posixpath.isabs(name) or posixpath.normpath(name).split("/")[0] == ".."
    if isinstance(location, Path):
        if reason := why_unreadable(location / name):
            raise ValueError(f"{whole}: {reason}")
        leaves = leaves or not is_inside(location / name, roots_of(location))
    elif "://" in name or "::" in name:
        leaves = True
    if leaves and not follow_links:
        raise ValueError(f"{whole}, which is outside the dataset's folder: {FIX}")


def _read(location: Path | str, name: str, by: str, follow_links: bool) -> dict[str, Any]:
    """Read a JSON object."""
    _check(location, name, by, follow_links)
    try:
        if isinstance(location, Path):
            with (location / name).open("rb") as file:
                data = file.read(LARGEST_JSON + 1)
        else:
            data = RemoteFile(f"{location}/{name}").read()
        if len(data) > LARGEST_JSON:
            raise ValueError(f"over {LARGEST_JSON} bytes")
        content = json.loads(data)
        if not isinstance(content, dict):
            raise ValueError("not a JSON object")
    except StoreError:
        raise
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{_shown(location, name)} is damaged or missing ({error})") from error
    return content


def _shown(location: Path | str, name: str) -> str:
    folder = display_name(location) if isinstance(location, Path) else location
    return f"{folder}/{shorten(name)}"
