"""Hashes of weights, by which models and codecs are told apart."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import torch
from torch import Tensor, nn

__all__ = ["hash_saved", "hash_state", "hash_weights", "hashes_of"]


def hash_state(state: Mapping[str, Tensor], without: tuple[str, ...] = ()) -> str:
    """SHA-256 (hex) of a state dict: names, dtypes, shapes and bytes.

    Args:
        state: see above.
        without: beginnings of the names of weights that are left out.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        if name.startswith(without):
            continue
        tensor = tensor.detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def hash_weights(model: nn.Module, without: tuple[str, ...] = ()) -> str:
    """Return `hash_state` of a model's weights."""
    return hash_state(model.state_dict(), without)


def hash_saved(
    state: Mapping[str, Tensor], dtype: torch.dtype | None = None, cast: tuple[str, ...] = ("",)
) -> str:
    """Return the hash that weights have once they are saved and loaded again, in float32.

    Args:
        state: the weights.
        dtype: type that floating-point weights are saved in; None keeps theirs.
        cast: beginnings of the names of weights that are saved in it.
    """

    def loaded(name: str, weight: Tensor) -> Tensor:
        if not weight.is_floating_point():
            return weight
        return (weight.to(dtype) if dtype and name.startswith(cast) else weight).float()

    return hash_state({name: loaded(name, weight) for name, weight in state.items()})


def hashes_of(model: nn.Module, decoder: tuple[str, ...]) -> dict[str, str]:
    """Return the `weight_hash` and the `encoder_hash` of a codec's network.

    Args:
        model: see above.
        decoder: beginnings of the names of weights that only decoding uses.
    """
    every = hash_weights(model)
    return {
        "weight_hash": every,
        "encoder_hash": hash_weights(model, decoder) if decoder else every,
    }
