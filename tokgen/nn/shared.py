"""Weights that two models share are saved once.

`share_weights("codecs/b", "codecs/a")` takes out of b's model.safetensors what equals the weights
of a, whose folder must stay beside that of b. The metadata of the file names a and the hash of its
weights file, and `Pretrained.from_pretrained` loads both.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from tokgen.nn.files import SCALE, WEIGHTS

__all__ = ["base_of", "rewrite", "share_weights"]

_BASE, _HASH = "base", "base_sha256"  # in the metadata of a safetensors file
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def share_weights(folder: str | Path, base: str | Path) -> int:
    """Take the tensors out of a folder's weights that its base has too, with the same values.

    Args:
        folder: of a model that `Pretrained` saved.
        base: of another one, in the same parent folder. It must not have a base itself.
    Returns:
        the number of bytes saved.
    Raises:
        ValueError: the folders do not lie beside each other, or nothing is equal.
    """
    folder, base = Path(folder).resolve(), Path(base).resolve()
    if folder.parent != base.parent or folder == base:
        raise ValueError(f"{base} must be another folder beside {folder}: move one of them")
    if base_of(base / WEIGHTS) is not None:
        raise ValueError(f"{base} shares weights itself: name the folder that has all of them")
    own, shared = load_file(folder / WEIGHTS), load_file(base / WEIGHTS)
    other = {
        name
        for name, weight in own.items()
        if name not in shared
        or weight.dtype != shared[name].dtype
        or not torch.equal(weight, shared[name])
    }
    other |= {name + SCALE for name in other} | {name.removesuffix(SCALE) for name in other}
    kept = {name: weight for name, weight in own.items() if name in other}
    if len(kept) == len(own):
        raise ValueError(f"{folder} and {base} have no weights in common: nothing to share")
    before = (folder / WEIGHTS).stat().st_size
    about = {"format": "pt", _BASE: base.name, _HASH: _file_hash(base / WEIGHTS)}
    rewrite(folder / WEIGHTS, kept, about)
    return before - (folder / WEIGHTS).stat().st_size


def rewrite(path: Path, tensors: dict[str, Tensor], about: dict[str, str]) -> None:
    """Replace a weights file; a killed process leaves the old file or the new one.

    Args:
        about: metadata of the file.
    """
    partial = path.with_name(path.name + ".partial")
    try:
        save_file(tensors, partial, metadata=about)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def base_of(weights: Path) -> Path | None:
    """Return the weights file that a weights file builds on; None if it is complete.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: it is another one than that of `share_weights`, or its name is no folder's.
    """
    with safe_open(str(weights), framework="pt") as file:
        about = file.metadata() or {}
    name = about.get(_BASE)
    if name is None:
        return None
    if not _NAME.fullmatch(name):
        raise ValueError(f"{weights} builds on {name[:60]!r}, which is no folder beside it")
    base = weights.parent.parent / name / WEIGHTS
    if not base.is_file():
        raise FileNotFoundError(
            f"{weights} holds only the weights that differ from those of {name}: put the folder "
            f"{name} beside it, or save the complete model with save_pretrained"
        )
    if _file_hash(base) != about.get(_HASH):
        raise ValueError(f"{weights} builds on other weights than those in {base}: update both")
    return base


def _file_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
