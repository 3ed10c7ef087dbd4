"""Mask schedules and training masks of SoundStorm (Borsos et al. 2023) and MaskGIT."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def cosine_schedule(r: float | Tensor) -> float | Tensor:
    """gamma(r) = cos(pi r / 2): the share that is masked at time r in [0, 1]."""
    return torch.cos(r * math.pi / 2) if isinstance(r, Tensor) else math.cos(r * math.pi / 2)


def n_masked(step: int, steps: int, total: Tensor, masked: Tensor) -> Tensor:
    """How many positions stay masked after `step` (0-based) of `steps`.

    floor(gamma((step+1)/steps) * total), in [1, masked - 1] before the last step, 0 after it.

    Args:
        total: int64 [B], masked positions before the first step, per item.
        masked: int64 [B], masked positions now.
    Returns:
        int64 [B]; never negative.
    """
    if step + 1 >= steps:
        return torch.zeros_like(total)
    wanted = torch.floor(cosine_schedule((step + 1) / steps) * total.double() + 1e-9).long()
    return torch.minimum(wanted.clamp(min=1), masked - 1).clamp(min=0)


@dataclass
class TrainingMask:
    """A batch with part of one level hidden.

    Attributes:
        tokens: int64 [B, K, T]; MASK at hidden positions and at all levels above.
        level: int64 [B], the level to predict in each item.
        target: bool [B, T], the hidden positions of that level, inside each item.
        divisor: float32 [], what a loss summed over the hidden positions is divided by; None for
            their number. Where a batch is dealt to N processes it is the whole batch's number / N
            for all, so that the mean of their losses is the loss of the whole.
    """

    tokens: Tensor
    level: Tensor
    target: Tensor
    divisor: Tensor | None = None


def draw_mask(
    lengths: Tensor, n_levels: int, n_frames: int, generator: torch.Generator
) -> tuple[Tensor, Tensor]:
    """Draw a level and hidden positions per item, as SoundStorm trains.

    Level q is uniform; positions of level q are hidden with probability gamma(u), u ~ U(0, 1), at
    least one per item.

    Args:
        lengths: int64 [B], frames of each item, on the CPU.
        n_levels: K.
        n_frames: T.
        generator: on the CPU; draws are made there so that every device trains alike.
    Returns:
        int64 [B] and bool [B, T]: `TrainingMask.level` and `.target`.
    """
    batch = len(lengths)
    level = torch.randint(0, n_levels, (batch,), generator=generator)
    share = torch.as_tensor(cosine_schedule(torch.rand(batch, 1, generator=generator)))
    noise = torch.rand(batch, n_frames, generator=generator)
    inside = torch.arange(n_frames) < lengths[:, None]
    target = (noise < share) & inside
    lowest = torch.where(inside, noise, 2.0).argmin(-1)
    target[torch.arange(batch), lowest] = True
    return level, target


def apply_mask(codes: Tensor, level: Tensor, target: Tensor, mask_id: int) -> TrainingMask:
    """Levels under an item's level stay visible, levels over it are all MASK.

    Args:
        codes: int64 [B, K, T].
        level, target: of `draw_mask`.
        mask_id: the MASK token.
    """
    index = torch.arange(codes.shape[1], device=codes.device)[None, :, None]
    here = level[:, None, None]
    hidden = (index > here) | ((index == here) & target[:, None])
    return TrainingMask(codes.masked_fill(hidden, mask_id), level, target)


def training_mask(
    codes: Tensor, lengths: Tensor, mask_id: int, generator: torch.Generator
) -> TrainingMask:
    """`draw_mask` and `apply_mask` of codes [B, K, T], wherever these are."""
    _, n_levels, n_frames = codes.shape
    level, target = draw_mask(lengths.cpu(), n_levels, n_frames, generator)
    return apply_mask(codes, level.to(codes.device), target.to(codes.device), mask_id)


def masked_cross_entropy(logits: Tensor, codes: Tensor, mask: TrainingMask) -> Tensor:
    """Mean cross-entropy (nats) over the hidden positions of each item's level.

    Args:
        logits: [B, T, V] at `mask.level`, or [n, V] of the positions `mask.target` alone.
        codes: int64 [B, K, T].
        mask: of `tokgen.modelling.masking.training_mask`.
    """
    wanted = _at_level(codes, mask.level)
    if logits.ndim == 2:
        wanted = wanted[mask.target]
    else:  # all positions with some ignored: picking them would have a GPU wait
        logits, wanted = logits.flatten(0, 1), wanted.masked_fill(~mask.target, -100).flatten()
    if mask.divisor is None:
        return F.cross_entropy(logits.float(), wanted)
    return F.cross_entropy(logits.float(), wanted, reduction="sum") / mask.divisor


@torch.no_grad()
def level_accuracy(
    logits: Tensor, codes: Tensor, mask: TrainingMask, n_codebooks: int
) -> tuple[Tensor, Tensor]:
    """Hidden positions whose likeliest code is right, and how many there were, per level [K].

    Args:
        logits, codes, mask: as `masked_cross_entropy` takes them.
        n_codebooks: K.
    """
    wanted, levels = _at_level(codes, mask.level), mask.level
    zeros = torch.zeros(n_codebooks, device=codes.device)
    seen = zeros.index_add(0, levels, mask.target.sum(-1).float())
    if logits.ndim == 2:
        right = torch.zeros_like(mask.target)
        right[mask.target] = logits.argmax(-1) == wanted[mask.target]
    else:
        right = (logits.argmax(-1) == wanted) & mask.target
    return zeros.index_add(0, levels, right.sum(-1).float()), seen


def _at_level(codes: Tensor, level: Tensor) -> Tensor:
    """codes [B, K, T] -> [B, T], each item's at its level."""
    return codes[torch.arange(len(codes), device=codes.device), level]
