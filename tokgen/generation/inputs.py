"""Inputs of the samplers: check lengths and given codes, and apply guidance."""

from __future__ import annotations

import torch
from torch import Tensor

from tokgen.generation.settings import check_seed
from tokgen.modelling.transformer import TokenTransformer

__all__ = ["apply_guidance", "check_given", "check_items"]


def check_items(lengths: Tensor, seed: int) -> list[int]:
    """Return the frames of each item.

    Raises:
        ValueError: no items, an item without frames, or a negative seed.
    """
    check_seed(seed)
    frames: list[int] = lengths.tolist()
    if not frames or min(frames) < 1:
        raise ValueError(f"lengths = {frames}: give at least one item, each of at least 1 frame")
    return frames


def check_given(
    model: TokenTransformer, codes: Tensor | None, keep: Tensor | None, inside: Tensor
) -> tuple[Tensor, Tensor]:
    """Check given codes.

    Args:
        model: the model, whose levels L are those of the codes, after the depth if it has one.
        codes: int64 [B, L, T], or None.
        keep: bool [B, L, T], true at given codes, or None.
        inside: bool [B, T], frames of each item.
    Returns:
        codes, and a mask of the given ones, both [B, L, T] on the CPU; nothing is given if both
        arguments are None.
    Raises:
        ValueError: one of them without the other, another shape, a code past its level's size, or
            codes without their depth.
    """
    wanted = (len(inside), model.n_levels, inside.shape[1])
    if codes is None and keep is None:
        return torch.zeros(wanted, dtype=torch.int64), torch.zeros(wanted, dtype=torch.bool)
    if codes is None or keep is None:
        raise ValueError("pass `codes` and `keep` together: the codes, and which of them to keep")
    if not codes.shape == keep.shape == wanted:
        raise ValueError(
            f"codes {tuple(codes.shape)} and keep {tuple(keep.shape)}: expected {wanted} for both"
        )
    codes, given = codes.cpu(), keep.cpu() & inside[:, None]
    if ((codes < 0) | (codes >= model.codebook_size))[given].any():
        raise ValueError(
            f"codes to keep lie outside 0..{model.codebook_size - 1}: a MASK among them?"
        )
    for level in range(model.n_codebooks if model.level_sizes else 0):
        row, size = level + model.variable_depth, model.size_of(level)
        if (codes[:, row] >= size)[given[:, row]].any():
            raise ValueError(f"codes to keep of level {level} lie outside 0..{size - 1}")
    if model.variable_depth:
        if (given.any(1) & ~given[:, 0]).any():
            raise ValueError("codes are kept without their depth: keep level 0 of their frames too")
        if (codes[:, 0] >= model.n_codebooks)[given[:, 0]].any():
            raise ValueError(f"depth to keep lies outside 1..{model.n_codebooks}")
    return codes, given


def apply_guidance(logits: Tensor, scale: float) -> Tensor:
    """Return u + s (c - u) of logits [2B, ...]: c of the first half, u of the second.

    Args:
        logits: predictions with the conditioning, then those without it.
        scale: s, `SamplingSettings.scale`.
    """
    conditional, unconditional = logits.chunk(2)
    return (conditional - unconditional).mul_(scale).add_(unconditional)
