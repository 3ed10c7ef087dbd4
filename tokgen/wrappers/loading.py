"""Loading a transformers model strictly: safetensors only, every weight in its place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from tokgen.codec import folder_name
from tokgen.pretrained import resolve_folder


def load_model(model_class: Any, source: str | Path, revision: str | None) -> tuple[Any, str]:
    """From a folder that `model_class.save_pretrained` wrote, or a hub id, in float32.

    Returns:
        the model in eval mode, and the folder's name or the hub id.
    Raises:
        FileNotFoundError: neither a folder nor a hub model in reach.
        ValueError: another model's config, or weights that do not fit.
    """
    from safetensors import SafetensorError

    folder = resolve_folder(source, revision)
    config_class = model_class.config_class
    config = config_class.get_config_dict(str(folder), local_files_only=True)[0]
    if config.get("model_type") != config_class.model_type:
        raise ValueError(
            f"{folder}: config.json is of a {config.get('model_type')!r}, not a "
            f"{config_class.model_type!r} model"
        )
    try:
        with _no_bars():
            model, loading = model_class.from_pretrained(
                str(folder),
                local_files_only=True,
                use_safetensors=True,
                dtype=torch.float32,
                output_loading_info=True,
            )
    except (RuntimeError, SafetensorError) as error:
        raise ValueError(f"{folder}: weights do not fit config.json: {error}") from error
    wrong = {kind: sorted(map(str, keys)) for kind, keys in loading.items() if keys}
    if wrong:
        raise ValueError(f"{folder}: weights do not fit config.json: {wrong}")
    return model.eval(), folder_name(folder) if Path(source).is_dir() else str(source)


@contextmanager
def _no_bars() -> Iterator[None]:
    """Without transformers' bar over weights, which takes a moment."""
    from transformers.utils import logging

    was_on = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            logging.enable_progress_bar()
