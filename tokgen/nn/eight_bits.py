"""Weights saved in 8 bits, half the size of float16.

`to_eight_bits("codecs/b")` rewrites a folder's model.safetensors. Each row of a matrix or of a
convolution becomes integers from -127 to 127 and one scale, a float16 with the name of the weight
and `SCALE`; vectors become float16. `Pretrained.from_pretrained` multiplies them again, in float32.
The weights, and so a codec's codes, are other ones than before: measure the codec that is loaded,
and convert an autoencoder before a quantizer is fitted to its latents.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from tokgen.nn.cards import change_weights
from tokgen.nn.files import SCALE, WEIGHTS, Tensors
from tokgen.nn.hashes import hash_saved
from tokgen.nn.shared import base_of, rewrite

__all__ = ["expand_header", "expand_weights", "to_eight_bits"]

_LEAST = 1024  # values; smaller weights stay float16
_SMALLEST = 2.0**-24  # the smallest float16


def to_eight_bits(folder: str | Path) -> int:
    """Rewrite the weights that `Pretrained` saved in a folder.

    Weights that are in 8 bits already stay as they are. A card that tokgen wrote gets the new hash.

    Returns:
        the number of bytes saved.
    Raises:
        ValueError: the folder shares weights with another.
    """
    path = Path(folder) / WEIGHTS
    if base_of(path) is not None:
        raise ValueError(f"{path} shares weights with another folder: convert before it shares")
    packed: dict[str, Tensor] = {}
    for name, weight in load_file(path).items():
        if not weight.is_floating_point() or name.endswith(SCALE):
            packed[name] = weight
        elif weight.ndim < 2 or weight.numel() < _LEAST:
            packed[name] = weight.half()
        else:
            rows = weight.float().flatten(1)
            scale = (rows.abs().amax(1) / 127).half().clamp(min=_SMALLEST)
            whole = torch.round(rows / scale.float()[:, None]).clamp(-127, 127)
            packed[name] = whole.to(torch.int8).view(weight.shape)
            packed[name + SCALE] = scale
    before = path.stat().st_size
    was = hash_saved(expand_weights(load_file(path)))
    rewrite(path, packed, {"format": "pt"})
    change_weights(Path(folder), was, hash_saved(expand_weights(packed)))
    return before - path.stat().st_size


def expand_header(tensors: Tensors) -> Tensors:
    """Return the dtypes and shapes of weights files as they are once they are expanded."""
    return {
        name: ("F16" if name + SCALE in tensors else dtype, shape)
        for name, (dtype, shape) in tensors.items()
        if not _is_scale(name, tensors)
    }


def expand_weights(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a file, with those in 8 bits as float32.

    Raises:
        ValueError: a scale does not fit its weight.
    """
    found = {}
    for name, weight in state.items():
        if _is_scale(name, state):
            continue
        scale = state.get(name + SCALE)
        if scale is not None:
            if weight.dtype != torch.int8 or scale.shape != weight.shape[:1]:
                raise ValueError(
                    f"{name} of {weight.dtype} {tuple(weight.shape)} with {scale.numel()} scales: "
                    "save the model again"
                )
            rows = weight.float().flatten(1) * scale.float()[:, None]
            weight = rows.view(weight.shape)
        found[name] = weight
    return found


def _is_scale(name: str, names: Tensors | dict[str, Tensor]) -> bool:
    return name.endswith(SCALE) and name.removesuffix(SCALE) in names
