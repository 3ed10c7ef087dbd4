"""Confidence intervals of means, pooled ratios and their differences.

With one seed, the interval is the studentised bootstrap over clips (Efron and Tibshirani 1993,
chapter 12.5): clips are drawn with replacement, and t* = (resampled - estimate) / its own standard
error takes the place of Student's t. So a skewed sample gets a longer side. The standard error of
a resample is at least `FLOOR` of that of the sample; without this floor, resamples of CER that hold
only zeros would have an infinite t*. With fewer than `FEW_CLIPS` clips, it is Student's t.

With several seeds, a standard error has a part for clips and a part for seeds, each from the
means over the other; the degrees of freedom are those of Satterthwaite (1946). The bootstrap over
clips stretches the part for clips, differently on each side. The two parts count the effect of one
seed on one clip twice, which widens intervals a little.

`recipes/benchmarks/interval_coverage.py` measures how often the intervals contain the truth.
"""

from __future__ import annotations

import math

import numpy as np

__all__ = ["BLOCK", "FEW_CLIPS", "FLOOR", "find_interval", "find_ratio"]

FLOOR = 0.2  # of the sample's standard error; 0.1 covers CER a little better, at a third more width
FEW_CLIPS = 5  # fewer make too few different resamples
BLOCK = 1 << 20  # numbers drawn at once


def find_ratio(tables: np.ndarray) -> float:
    """Return the pooled ratio of tables, or the second minus the first; NaN for x / 0.

    Args:
        tables: numerators and denominators [2, S, C] of seeds x clips; [4, S, C] for two sides.
    """
    sums = tables.sum(2).sum(1)
    if not (sums[1::2] > 0).all():
        return math.nan
    ratios = sums[0::2] / sums[1::2]
    return float(ratios[0] if len(ratios) == 1 else ratios[1] - ratios[0])


def find_interval(
    tables: np.ndarray, *, seed: int, n_resamples: int, level: float
) -> tuple[float, float]:
    """Return the ends of the interval around `find_ratio`; NaN with fewer than two clips.

    Args:
        tables: finite numbers, as in `find_ratio`, whose ratio is not NaN. Numerators and
            denominators of failures are 0.
        seed, n_resamples: seed and number of resamples of clips.
        level: level of the two-sided interval.
    """
    from scipy.stats import t as student

    _, n_seeds, n_clips = tables.shape
    if n_clips < 2:
        return math.nan, math.nan
    mean = find_ratio(tables)
    # The errors of numerators sum to 0, and sum(errors) / sum(weights) of a resample is the
    # difference of its ratio from the estimate.
    scale = tables[1::2].mean((1, 2), keepdims=True)
    ratios = tables[0::2].sum((1, 2), keepdims=True) / tables[1::2].sum((1, 2), keepdims=True)
    weights = tables[1::2] / scale  # [sides, S, C]
    errors = tables[0::2] / scale - ratios * weights
    effects = _subtract(errors)  # [S, C]
    tiny = 1e-13 * np.abs(tables[0::2] / scale).max()  # rounding of equal values
    clips = _variance_of_mean(effects.mean(0), tiny)
    seeds = _variance_of_mean(effects.mean(1), tiny) if n_seeds > 1 else 0.0
    if clips + seeds == 0:
        return mean, mean
    tail = (1 + level) / 2
    usual = float(student.ppf(tail, n_clips - 1))
    down = up = usual
    if n_clips >= FEW_CLIPS and clips:
        found = _studentised(errors.mean(1), weights.mean(1), math.sqrt(clips), seed, n_resamples)
        lower, upper = np.nanquantile(found, [1 - tail, tail])
        down, up = max(0.0, float(upper)), max(0.0, -float(lower))
    freedom: float = n_clips - 1
    if seeds:
        freedom = (clips + seeds) ** 2 / (seeds**2 / (n_seeds - 1) + clips**2 / (n_clips - 1))
    both = float(student.ppf(tail, freedom))
    low, high = (both * math.sqrt(seeds + clips * (side / usual) ** 2) for side in (down, up))
    return mean - low, mean + high


def _subtract(sides: np.ndarray) -> np.ndarray:
    """Return the only side, or the second minus the first."""
    return sides[0] if len(sides) == 1 else sides[1] - sides[0]


def _variance_of_mean(values: np.ndarray, tiny: float) -> float:
    """Return the variance of the mean of values [N]; 0 if they differ by rounding only."""
    if np.ptp(values) <= tiny:
        return 0.0
    return float(values.var(ddof=1)) / len(values)


def _studentised(
    errors: np.ndarray, weights: np.ndarray, error: float, seed: int, n_resamples: int
) -> np.ndarray:
    """Return t* of resamples [R]; NaN for resamples without weight.

    Args:
        errors, weights: means over seeds [sides, C].
        error: standard error of the sample.
    """
    n = errors.shape[1]
    rng = np.random.default_rng(seed)
    found = []
    step = max(1, BLOCK // n)
    for start in range(0, n_resamples, step):
        draws = rng.integers(0, n, (min(step, n_resamples - start), n))
        e, w = errors[:, draws], weights[:, draws]  # [sides, R, C]
        total = w.mean(-1)
        total[total <= 0] = math.nan
        shift = e.mean(-1) / total
        effects = _subtract((e - shift[..., None] * w) / total[..., None])
        own = effects.std(-1, ddof=1) / math.sqrt(n)
        found.append(_subtract(shift) / np.maximum(own, FLOOR * error))
    return np.concatenate(found)
