"""Encode for a job: codes of a `Codec`, or latents of a `ContinuousCodec`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.continuous import ContinuousCodec
from tokgen.codec.long_audio import encode_blocks, encode_latent_blocks
from tokgen.codec.spec import Side

__all__ = ["EncodedItem", "as_array", "encode_items", "encode_long", "for_levels"]


@dataclass(frozen=True)
class EncodedItem:
    """An utterance: codes int64 [K, T] with side information, or latents float32 [D, T]."""

    values: Tensor
    side: Side = field(default_factory=dict)


def for_levels(codec: Any, n_codebooks: int) -> Any:
    """Return a codec that makes a dataset with `n_codebooks` levels; 0 for latents."""
    return codec.for_levels(n_codebooks) if isinstance(codec, Codec) else codec


def encode_items(codec: Codec | ContinuousCodec, waveforms: Sequence[Tensor]) -> list[EncodedItem]:
    """Encode utterances [C, N_i]; the result does not depend on how they are batched."""
    if isinstance(codec, ContinuousCodec):
        return [EncodedItem(latents) for latents in codec.encode_batch(waveforms)]
    return [EncodedItem(e.codes, e.side) for e in codec.encode_batch_with_side(waveforms)]


def encode_long(
    codec: Codec | ContinuousCodec, blocks: Iterable[Tensor], n_codebooks: int
) -> EncodedItem:
    """Encode an utterance that arrives in blocks.

    Raises:
        TooLong, OutOfReach: as `encode_blocks`.
    """
    if isinstance(codec, ContinuousCodec):
        return EncodedItem(encode_latent_blocks(codec, blocks)[0])
    encoded = encode_blocks(codec, blocks, n_codebooks)
    return EncodedItem(encoded.codes[0], {name: values[0] for name, values in encoded.side.items()})


def as_array(values: Tensor, n_codebooks: int) -> np.ndarray:
    """Return codes as uint16 [T, K], or latents as float16 [T, D].

    Raises:
        ValueError: a latent is not finite in float16.
    """
    if not values.is_floating_point():
        return values[:n_codebooks].T.cpu().numpy().astype(np.uint16)
    latents = values.T.half().cpu().numpy()
    if not np.isfinite(latents).all():
        largest = values.abs().max().item()
        raise ValueError(f"latents up to {largest:g}, which float16 (65504 at most) cannot hold")
    return latents
