"""Load the model of a backend from the cache or the hub."""

from __future__ import annotations

import contextlib
import urllib.request
from collections.abc import Callable
from typing import TypeVar

Model = TypeVar("Model")


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
    """Return whether the hub answers for a model within 5 s, without the hub client's retries."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        url = f"{constants.ENDPOINT}/api/models/{name}"
        with urllib.request.urlopen(url, timeout=5.0):
            return True
    except OSError:
        return False
