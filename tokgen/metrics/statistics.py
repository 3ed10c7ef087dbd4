"""Means with their uncertainty: percentile bootstrap over clips, failures counted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Estimate:
    """A mean (or pooled ratio) with its bootstrap interval.

    `low` and `high` are NaN with fewer than two values: one clip tells nothing about spread.
    """

    mean: float
    low: float
    high: float
    n: int
    n_failed: int

    def __str__(self) -> str:
        failed = f", {self.n_failed} failed" if self.n_failed else ""
        return f"{self.mean:.3f} [{self.low:.3f}, {self.high:.3f}] (n {self.n}{failed})"


def bootstrap_mean(
    values: Sequence[float], *, seed: int = 0, n_resamples: int = 2000, level: float = 0.95
) -> Estimate:
    """Mean over clips; NaN values count as failed, infinite ones are kept out too."""
    return bootstrap_ratio(
        values, np.ones(len(values)), seed=seed, n_resamples=n_resamples, level=level
    )


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float] | np.ndarray,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Sum of numerators over sum of denominators (pooled CER), resampling clips.

    A clip with a number that is not finite in either has failed.
    """
    a, b = np.asarray(numerators, dtype=float), np.asarray(denominators, dtype=float)
    good = np.isfinite(a) & np.isfinite(b)
    a, b, n_failed = a[good], b[good], int((~good).sum())
    if len(a) == 0 or b.sum() == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, n_failed + len(a))
    mean = float(a.sum() / b.sum())
    if len(a) == 1:
        return Estimate(mean, math.nan, math.nan, 1, n_failed)
    draws = np.random.default_rng(seed).integers(0, len(a), (n_resamples, len(a)))
    sums = b[draws].sum(-1)
    ratios = a[draws].sum(-1)[sums > 0] / sums[sums > 0]
    low, high = np.quantile(ratios, [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean, float(low), float(high), len(a), n_failed)


def paired_difference(
    first: Sequence[float], second: Sequence[float], *, seed: int = 0, n_resamples: int = 2000
) -> Estimate:
    """Mean of second - first over the same clips; a failure in either fails the pair."""
    if len(first) != len(second):
        raise ValueError(f"{len(first)} and {len(second)} values: pairs need equal counts")
    difference = np.asarray(second, dtype=float) - np.asarray(first, dtype=float)
    return bootstrap_mean(difference.tolist(), seed=seed, n_resamples=n_resamples)
