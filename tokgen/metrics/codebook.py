"""Codebook use, perplexity and token match of codes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from tokgen.metrics.statistics import Estimate

__all__ = [
    "N_RESAMPLES",
    "codebook_use",
    "entropy_bits",
    "live_codes",
    "perplexity",
    "token_match",
    "use_with_interval",
]

N_RESAMPLES = 400  # for the intervals of codebook use


def live_codes(codes: Tensor, depth: Tensor | None) -> list[Tensor]:
    """Return the codes of each level that the depth keeps, as K tensors of their own lengths.

    Args:
        codes: [K, T].
        depth: levels of each frame [T]; None keeps all.
    """
    if depth is None:
        return list(codes)
    return [level[depth > k] for k, level in enumerate(codes)]


def entropy_bits(codes: Sequence[Sequence[Tensor] | Tensor], codebook_size: int) -> Tensor:
    """Return the entropy [K] of the pooled codes of each level, in bits.

    It is biased low by about (codebook_size - 1) / (2 N ln 2) bits for N frames: report N with it.

    Args:
        codes: [K, T] of each clip, or K tensors of any lengths (`live_codes`). A level without
            codes has the entropy NaN.
        codebook_size: entries per level.
    """
    by_level = zip(*codes, strict=True)
    pooled = [torch.cat([level.long().cpu() for level in levels]) for levels in by_level]
    counts = [torch.bincount(level, minlength=codebook_size) for level in pooled]
    p = torch.stack(counts).double()
    p = p / p.sum(-1, keepdim=True)
    return -torch.special.xlogy(p, p).sum(-1) / math.log(2)


def codebook_use(
    codes: Sequence[Sequence[Tensor] | Tensor], codebook_size: int | Sequence[int]
) -> Tensor:
    """Return the entropy [K] in % of the largest possible, log2(codebook_size).

    Levels may have a size each.
    """
    sizes = _sizes(codebook_size, len(codes[0]))
    largest = torch.tensor([math.log2(size) for size in sizes], dtype=torch.float64)
    return 100 * entropy_bits(codes, max(sizes)) / largest


def perplexity(codes: Sequence[Sequence[Tensor] | Tensor], codebook_size: int) -> Tensor:
    """Return 2 ** entropy [K], the effective number of entries in use."""
    return 2 ** entropy_bits(codes, codebook_size)


def use_with_interval(
    codes: Sequence[Sequence[np.ndarray]], codebook_size: int | Sequence[int]
) -> dict[str, list[Estimate]]:
    """Estimate codebook use with 95 % bootstrap intervals over clips.

    Entropy is biased low with few frames, and lower still in a resample, which repeats clips. So
    the intervals are centred on the estimate. "codebook_use_corrected" adds the bias derived by
    Miller and Madow (1955): (entries seen - 1) / (2 N) nats for N frames.

    Args:
        codes: [K, T_i] of each clip, or K arrays of any lengths.
        codebook_size: entries per level, or one size for each level.
    Returns:
        "codebook_use" and "codebook_use_corrected", each K + 1 estimates in percent: the mean over
        levels, then each level; n counts clips. A level without codes is NaN, and is left out of
        the mean.
    """
    n_clips, sizes = len(codes), _sizes(codebook_size, len(codes[0]))
    rng = np.random.default_rng(0)
    weights = rng.multinomial(n_clips, np.full(n_clips, 1 / n_clips), N_RESAMPLES)
    weights = np.concatenate([np.ones((1, n_clips), dtype=weights.dtype), weights])
    plain, corrected = [], []
    for level in range(len(codes[0])):
        top = math.log(sizes[level])
        _, inverse = np.unique(np.concatenate([c[level] for c in codes]), return_inverse=True)
        bounds = np.cumsum([0, *(len(c[level]) for c in codes)])
        if not len(inverse):
            plain.append(np.full(len(weights), np.nan))
            corrected.append(plain[-1])
            continue
        n_seen = int(inverse.max()) + 1
        counts = np.stack(
            [np.bincount(inverse[a:b], minlength=n_seen) for a, b in pairwise(bounds)]
        )
        totals = weights.astype(np.float64) @ counts.astype(np.float64)  # [1 + resamples, seen]
        n_frames = np.maximum(totals.sum(-1), 1)  # a resample may lack a level of few codes
        p = totals / n_frames[:, None]
        entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
        bias = ((totals > 0).sum(-1) - 1) / (2 * n_frames)
        plain.append(100 * entropy / top)
        corrected.append(100 * np.minimum(entropy + bias, top) / top)
    found = {"codebook_use": np.stack(plain), "codebook_use_corrected": np.stack(corrected)}
    return {
        name: [_centred(row, n_clips) for row in (_mean_of_known(values), *values)]
        for name, values in found.items()
    }


def _sizes(codebook_size: int | Sequence[int], n_levels: int) -> Sequence[int]:
    """Return the entries of each of the first levels."""
    if isinstance(codebook_size, int):
        return (codebook_size,) * n_levels
    return codebook_size[:n_levels]


def _mean_of_known(values: np.ndarray) -> np.ndarray:
    """Return the mean of the rows [K, ...] that are numbers."""
    known = ~np.isnan(values[:, 0])
    return values[known].mean(0) if known.any() else values[0]


def _centred(values: np.ndarray, n: int) -> Estimate:
    """Centre the interval of resamples `values[1:]` on the estimate `values[0]`."""
    estimate, resamples = float(values[0]), values[1:]
    if n < 2 or math.isnan(estimate):
        return Estimate(estimate, math.nan, math.nan, n, 0)
    low, high = np.quantile(resamples - resamples.mean(), [0.025, 0.975])
    return Estimate(estimate, max(0.0, estimate + low), min(100.0, estimate + high), n, 0)


def token_match(a: Tensor, b: Tensor, depth: Tensor | None = None) -> Tensor:
    """Return the share of equal codes per level [K].

    Args:
        a, b: [K, T] of equal shape.
        depth: levels of each frame [T] that are compared, such as the smaller depth of both; None
            compares all. A level that no frame has is NaN.
    Raises:
        ValueError: the shapes differ. Trim the codes first so that their frames correspond.
    """
    if a.shape != b.shape:
        raise ValueError(f"codes of shapes {tuple(a.shape)} and {tuple(b.shape)}: trim to match")
    if depth is None:
        return (a == b).double().mean(-1)
    live = torch.arange(len(a), device=a.device)[:, None] < depth
    return ((a == b) & live).double().sum(-1) / live.double().sum(-1)
