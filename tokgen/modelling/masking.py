"""Mask schedule, training masks and loss of SoundStorm (Borsos et al. 2023) and MaskGIT."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.modelling.depths import live_levels
from tokgen.runs.device import float64

__all__ = [
    "TrainingMask",
    "apply_mask",
    "cosine_schedule",
    "draw_mask",
    "level_accuracy",
    "masked_cross_entropy",
    "n_masked",
    "training_mask",
]


def cosine_schedule(r: float | Tensor) -> float | Tensor:
    """Share of masked positions at time r in [0, 1]: gamma(r) = cos(pi r / 2)."""
    return torch.cos(r * math.pi / 2) if isinstance(r, Tensor) else math.cos(r * math.pi / 2)


def n_masked(step: int, steps: int, total: Tensor, masked: Tensor) -> Tensor:
    """Number of positions that stay masked after `step` (0-based) of `steps`.

    It is floor(gamma((step+1)/steps) * total), clipped to [1, masked - 1]; 0 after the last step.

    Args:
        total: int64 [B], masked positions of each item before the first step.
        masked: int64 [B], masked positions before this step.
    Returns:
        int64 [B], at least 0.
    """
    if step + 1 >= steps:
        return torch.zeros_like(total)
    share = cosine_schedule((step + 1) / steps)
    wanted = torch.floor(share * float64(total) + 1e-9).long().to(total.device)
    return torch.minimum(wanted.clamp(min=1), masked - 1).clamp(min=0)


@dataclass
class TrainingMask:
    """A batch whose items each have some positions of one level hidden.

    Attributes:
        tokens: int64 [B, L, T] of L levels; MASK at the hidden positions and at all higher levels.
        level: int64 [B], the level to predict in each item.
        target: bool [B, T], the hidden positions of that level.
        divisor: float32 [], divides the loss summed over hidden positions; None for their number.
            If N processes share a batch, it is the number of hidden positions in the whole batch,
            divided by N, so that the mean of their losses is the loss of the batch.
    """

    tokens: Tensor
    level: Tensor
    target: Tensor
    divisor: Tensor | None = None


def draw_mask(
    lengths: Tensor,
    n_levels: int,
    n_frames: int,
    generator: torch.Generator,
    live: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw a level and hidden positions for each item, as SoundStorm does in training.

    The level is uniform. Its positions are hidden with probability gamma(u), u ~ U(0, 1), and at
    least one is hidden.

    Args:
        lengths: int64 [B], frames of each item, on the CPU.
        n_levels: levels of the tokens.
        n_frames: T.
        generator: on the CPU, so that all devices draw the same.
        live: bool [B, levels, T], positions that may be hidden; None means all. An item's level is
            one of those that are live in some frame.
    Returns:
        `TrainingMask.level`, int64 [B], and `.target`, bool [B, T].
    """
    batch, inside = len(lengths), torch.arange(n_frames) < lengths[:, None]
    if live is None:
        level = torch.randint(0, n_levels, (batch,), generator=generator)
    else:
        live = live & inside[:, None]
        n_live = live.any(-1).sum(-1)  # live levels come first
        level = (torch.rand(batch, generator=generator, dtype=torch.float64) * n_live).long()
        inside = live[torch.arange(batch), level]
    share = torch.as_tensor(cosine_schedule(torch.rand(batch, 1, generator=generator)))
    noise = torch.rand(batch, n_frames, generator=generator)
    target = (noise < share) & inside
    lowest = torch.where(inside, noise, 2.0).argmin(-1)
    target[torch.arange(batch), lowest] = True
    return level, target


def apply_mask(codes: Tensor, level: Tensor, target: Tensor, mask_id: int) -> TrainingMask:
    """Hide the target positions and all higher levels; lower levels stay visible.

    Args:
        codes: int64 [B, L, T].
        level, target: from `draw_mask`.
        mask_id: the MASK token.
    """
    index = torch.arange(codes.shape[1], device=codes.device)[None, :, None]
    here = level[:, None, None]
    hidden = (index > here) | ((index == here) & target[:, None])
    return TrainingMask(codes.masked_fill(hidden, mask_id), level, target)


def training_mask(
    codes: Tensor,
    lengths: Tensor,
    mask_id: int,
    generator: torch.Generator,
    *,
    variable_depth: bool = False,
) -> TrainingMask:
    """Draw a mask on the CPU and apply it to codes [B, L, T] on any device.

    With `variable_depth`, level 0 of the codes is the depth (see `tokgen.modelling.depths`).
    """
    _, n_levels, n_frames = codes.shape
    live = live_levels(codes).cpu() if variable_depth else None
    level, target = draw_mask(lengths.cpu(), n_levels, n_frames, generator, live)
    return apply_mask(codes, level.to(codes.device), target.to(codes.device), mask_id)


def masked_cross_entropy(logits: Tensor, codes: Tensor, mask: TrainingMask) -> Tensor:
    """Mean cross-entropy (nats) over the hidden positions.

    Args:
        logits: [B, T, V] at `mask.level`, or [n, V] for the positions `mask.target` only.
        codes: int64 [B, L, T].
        mask: what was hidden.
    """
    wanted = _at_level(codes, mask.level)
    if logits.ndim == 2:
        wanted = wanted[mask.target]
    else:  # ignore the other positions; to select the hidden ones, a GPU would have to wait
        logits, wanted = logits.flatten(0, 1), wanted.masked_fill(~mask.target, -100).flatten()
    if mask.divisor is None:
        return F.cross_entropy(logits.float(), wanted)
    return F.cross_entropy(logits.float(), wanted, reduction="sum") / mask.divisor


@torch.no_grad()
def level_accuracy(
    logits: Tensor, codes: Tensor, mask: TrainingMask, n_levels: int
) -> tuple[Tensor, Tensor]:
    """Count hidden positions per level, and those whose likeliest code is right.

    Args:
        logits, codes, mask: see `masked_cross_entropy`.
        n_levels: L.
    Returns:
        right positions and all hidden positions, [L] each.
    """
    wanted, levels = _at_level(codes, mask.level), mask.level
    zeros = torch.zeros(n_levels, device=codes.device)
    seen = zeros.index_add(0, levels, mask.target.sum(-1).float())
    if logits.ndim == 2:
        right = torch.zeros_like(mask.target)
        right[mask.target] = logits.argmax(-1) == wanted[mask.target]
    else:
        right = (logits.argmax(-1) == wanted) & mask.target
    return zeros.index_add(0, levels, right.sum(-1).float()), seen


def _at_level(codes: Tensor, level: Tensor) -> Tensor:
    """Select the codes [B, T] of each item's level from codes [B, L, T]."""
    return codes[torch.arange(len(codes), device=codes.device), level]
