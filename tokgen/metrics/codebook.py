"""Statistics of codes: use of the codebooks, match between two encodings."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from tokgen.metrics.statistics import Estimate


def level_histograms(codes: Sequence[Tensor], codebook_size: int) -> Tensor:
    """Counts [K, codebook_size] pooled over utterances codes [K, T]."""
    pooled = torch.cat([c.long().cpu() for c in codes], dim=-1)
    return torch.stack([torch.bincount(level, minlength=codebook_size) for level in pooled])


def entropy_bits(codes: Sequence[Tensor], codebook_size: int) -> Tensor:
    """Entropy [K] in bits of each level's pooled code distribution.

    Biased low by about (codebook_size - 1) / (2 N ln 2) bits for N frames: report N with it.
    """
    p = level_histograms(codes, codebook_size).double()
    p = p / p.sum(-1, keepdim=True)
    return -torch.special.xlogy(p, p).sum(-1) / math.log(2)


def codebook_use(codes: Sequence[Tensor], codebook_size: int) -> Tensor:
    """Entropy [K] in percent of the largest possible, log2(codebook_size)."""
    return 100 * entropy_bits(codes, codebook_size) / math.log2(codebook_size)


def use_with_interval(
    codes: Sequence[np.ndarray], codebook_size: int, *, seed: int = 0, n_resamples: int = 400
) -> dict[str, list[Estimate]]:
    """Codebook use with 95 % bootstrap intervals over clips: the mean over levels, then each level.

    Entropy is biased low with few frames, and lower still in a resample, which repeats clips. So
    the intervals are centred on the estimate, and "codebook_use_corrected" adds the bias that
    Miller and Madow (1955) derive: (entries seen - 1) / (2 N) nats for N frames.

    Args:
        codes: [K, T_i] of each clip.
        codebook_size: entries per level.
        seed: of the resampling.
        n_resamples: how many.
    Returns:
        "codebook_use" and "codebook_use_corrected" -> K + 1 estimates in percent, n = clips.
    """
    n_clips, top = len(codes), math.log(codebook_size)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(n_clips, np.full(n_clips, 1 / n_clips), n_resamples)
    weights = np.concatenate([np.ones((1, n_clips), dtype=weights.dtype), weights])
    plain, corrected = [], []
    for level in range(len(codes[0])):
        _, inverse = np.unique(np.concatenate([c[level] for c in codes]), return_inverse=True)
        bounds = np.cumsum([0, *(c.shape[-1] for c in codes)])
        n_seen = int(inverse.max()) + 1
        counts = np.stack(
            [np.bincount(inverse[a:b], minlength=n_seen) for a, b in pairwise(bounds)]
        )
        totals = weights.astype(np.float64) @ counts.astype(np.float64)  # [1 + resamples, seen]
        n_frames = totals.sum(-1)
        p = totals / n_frames[:, None]
        entropy = -(p * np.log(np.where(p > 0, p, 1.0))).sum(-1)
        bias = ((totals > 0).sum(-1) - 1) / (2 * n_frames)
        plain.append(100 * entropy / top)
        corrected.append(100 * np.minimum(entropy + bias, top) / top)
    found = {"codebook_use": np.stack(plain), "codebook_use_corrected": np.stack(corrected)}
    return {
        name: [_centred(row, n_clips) for row in (values.mean(0), *values)]
        for name, values in found.items()
    }


def _centred(values: np.ndarray, n: int) -> Estimate:
    """The first value is the estimate, the others its resamples."""
    estimate, resamples = float(values[0]), values[1:]
    if n < 2:
        return Estimate(estimate, math.nan, math.nan, n, 0)
    low, high = np.quantile(resamples - resamples.mean(), [0.025, 0.975])
    return Estimate(estimate, max(0.0, estimate + low), min(100.0, estimate + high), n, 0)


def perplexity(codes: Sequence[Tensor], codebook_size: int) -> Tensor:
    """2 ** entropy [K]: how many entries are in effective use."""
    return 2 ** entropy_bits(codes, codebook_size)


def token_match(a: Tensor, b: Tensor) -> Tensor:
    """Share of equal codes per level [K].

    Args:
        a, b: [K, T] of equal shape.
    Raises:
        ValueError: shapes differ; say which frames correspond by trimming first.
    """
    if a.shape != b.shape:
        raise ValueError(f"codes of shapes {tuple(a.shape)} and {tuple(b.shape)}: trim to match")
    return (a == b).double().mean(-1)
