"""Find the model of a backend in the hub's cache or on the hub, and load it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tokgen.hub import why_unavailable
from tokgen.runs.progress import quiet_logs

__all__ = ["TIMEOUT", "find_model", "hub_model_in_reach", "load_if_in_reach"]

Model = TypeVar("Model")
TIMEOUT = 5.0  # seconds that the hub has to answer whether it has a model


def load_if_in_reach(name: str, load: Callable[..., Model]) -> Model | None:
    """Load a hub model from the cache, else from the hub; None if it is in neither.

    Args:
        name: hub id of the model.
        load: loads the model. It takes `local_files_only` and raises OSError on failure.
    """
    with contextlib.suppress(OSError):
        return load(local_files_only=True)
    if hub_model_in_reach(name):
        with contextlib.suppress(OSError):
            return load()
    return None


def hub_model_in_reach(name: str) -> bool:
    """Return whether the hub answers for a model within `TIMEOUT`."""
    from huggingface_hub import HfApi

    try:
        HfApi().model_info(name, timeout=TIMEOUT)
    except Exception:  # the hub's client raises more than OSError
        return False
    return True


def find_model(
    name: str, needed: Sequence[str], also: Sequence[str] = (), *, local_files_only: bool = False
) -> Path:
    """Return a folder with the files of a hub model: any revision in the cache, or a download.

    If the main branch has only a pickle, the files come from the pull request in which the hub's
    own converter offers safetensors. transformers loads the same one, but does not find it again
    in the cache.

    Args:
        name: hub id.
        needed: files that the folder must have.
        also: patterns of further files to download.
        local_files_only: look only in the cache.
    Raises:
        OSError: the model is in neither, or has no safetensors; the message names the fix.
    """
    from huggingface_hub import get_repo_discussions, snapshot_download

    if (folder := _cached(name, needed)) is not None:
        return folder
    if local_files_only:
        raise FileNotFoundError(f"{name} with {', '.join(needed)} is not in the hub's cache")
    patterns = [*needed, *also]
    try:
        with quiet_logs():
            folder = Path(snapshot_download(name, allow_patterns=patterns))
        if _complete(folder, needed):
            return folder
        wanted: Any = {"discussion_type": "pull_request", "discussion_status": "open"}
        for conversion in get_repo_discussions(name, author="SFconvertbot", **wanted):
            revision = conversion.git_reference
            with quiet_logs():
                folder = Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
            if _complete(folder, needed):
                return folder
    except Exception as error:  # the hub's client raises more than OSError
        raise OSError(f"{name} cannot be downloaded: {why_unavailable(error, name)}") from error
    missing = [file for file in needed if not (folder / file).is_file()]
    raise FileNotFoundError(
        f"{name} has no {', '.join(missing)}: if its weights are a pickle, convert them to "
        "safetensors and pass the folder"
    )


def _cached(name: str, needed: Sequence[str]) -> Path | None:
    """Return the newest complete snapshot in the cache; the one of the main branch goes first."""
    from huggingface_hub import constants, errors, scan_cache_dir, snapshot_download

    cache = constants.HF_HUB_CACHE
    with contextlib.suppress(errors.LocalEntryNotFoundError):
        folder = Path(snapshot_download(name, cache_dir=cache, local_files_only=True))
        if _complete(folder, needed):
            return folder
    with contextlib.suppress(errors.CacheNotFound):
        snapshots = [
            revision
            for repository in scan_cache_dir(cache).repos
            if repository.repo_type == "model" and repository.repo_id == name
            for revision in repository.revisions
        ]
        for revision in sorted(snapshots, key=lambda r: r.last_modified, reverse=True):
            if _complete(revision.snapshot_path, needed):
                return revision.snapshot_path
    return None


def _complete(folder: Path, needed: Sequence[str]) -> bool:
    return all((folder / file).is_file() for file in needed)
