"""Means, pooled ratios and paired differences with intervals, and how to format them.

Values are one per clip, or a table of training seeds x clips. `tokgen.metrics.intervals` describes
the intervals. Those of a table cover other clips and other trainings. With one seed, an interval
says nothing about another training.

Failures (NaN or infinity) are left out and counted, never replaced.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import ArrayLike

from tokgen.metrics.intervals import find_interval, find_ratio

__all__ = [
    "NONE",
    "NO_LIMITS",
    "Direction",
    "Estimate",
    "Limits",
    "Verdict",
    "bootstrap_crossed",
    "bootstrap_mean",
    "bootstrap_ratio",
    "csv_fields",
    "format_estimate",
    "format_interval",
    "format_number",
    "judge",
    "paired_crossed",
    "pearson",
]

NONE = "–"  # shown for a value that does not apply or is not known
Direction = Literal["higher", "lower"]
Limits = tuple[float, float]
NO_LIMITS: Limits = (-math.inf, math.inf)
Verdict = Literal["better", "no worse", "worse", "worse, margin undecided", "undecided"]


@dataclass(frozen=True)
class Estimate:
    """A mean, a pooled ratio or a difference of either, with its interval.

    Attributes:
        mean: NaN if every value failed.
        low, high: ends of the interval; NaN with fewer than two clips.
        n: clips with at least one value that did not fail.
        n_failed: values that failed. A clip has one value per seed, so with one seed `n` and
            `n_failed` add up to the number of clips.
    """

    mean: float
    low: float
    high: float
    n: int
    n_failed: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Return the JSON form, in which NaN is None."""
        return {k: v if math.isfinite(v) else None for k, v in vars(self).items()}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Estimate:
        """Read the JSON form. Absent values are NaN or 0, and other keys are ignored.

        Raises:
            TypeError: a value is not a number.
        """
        keys = ("mean", "low", "high", "n", "n_failed")
        for value in (content.get(key) for key in keys):
            if isinstance(value, bool) or not isinstance(value, int | float | None):
                raise TypeError(f"expected a number, found {type(value).__name__}")
        mean, low, high = (
            math.nan if content.get(k) is None else float(content[k]) for k in keys[:3]
        )
        return cls(mean, low, high, *(int(content.get(k) or 0) for k in keys[3:]))


def format_number(value: float, digits: int, *, sign: bool = False) -> str:
    """Format a number, with "+" before positive ones if `sign`; "" if it is not finite."""
    return f"{value:{'+' if sign else ''}.{digits}f}" if math.isfinite(value) else ""


def format_interval(estimate: Estimate, digits: int, *, sign: bool = False) -> str:
    """Format an interval as "[low, high]"; "" if it is not known."""
    ends = [format_number(end, digits, sign=sign) for end in (estimate.low, estimate.high)]
    return f"[{', '.join(ends)}]" if all(ends) else ""


def format_estimate(estimate: Estimate | None, digits: int, *, sign: bool = False) -> str:
    """Format an estimate as "mean [low, high]", or "mean" for one clip; "–" if there is none."""
    if estimate is None or math.isnan(estimate.mean):
        return NONE
    mean = format_number(estimate.mean, digits, sign=sign)
    return f"{mean} {format_interval(estimate, digits, sign=sign)}".rstrip()


def csv_fields(estimate: Estimate) -> list[str | int]:
    """Return mean, low, high, n and n_failed for a CSV file, with 6 significant digits."""
    means = (estimate.mean, estimate.low, estimate.high)
    return [
        *("" if math.isnan(value) else f"{value:.6g}" for value in means),
        estimate.n,
        estimate.n_failed,
    ]


def bootstrap_mean(
    values: Sequence[float],
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    level: float = 0.95,
    limits: Limits = NO_LIMITS,
) -> Estimate:
    """Estimate a mean over clips. NaN and infinite values count as failed.

    Args:
        values: one for each clip.
        seed, n_resamples, level, limits: as in `bootstrap_crossed`.
    """
    return bootstrap_ratio(
        values,
        np.ones(len(values)),
        seed=seed,
        n_resamples=n_resamples,
        level=level,
        limits=limits,
    )


def bootstrap_ratio(
    numerators: Sequence[float],
    denominators: Sequence[float] | np.ndarray,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    level: float = 0.95,
    limits: Limits = NO_LIMITS,
) -> Estimate:
    """Estimate the sum of numerators over the sum of denominators (pooled CER).

    A clip has failed if its numerator or denominator is not finite.
    """
    return bootstrap_crossed(
        np.asarray(numerators, dtype=float)[None],
        np.asarray(denominators, dtype=float)[None],
        seed=seed,
        n_resamples=n_resamples,
        level=level,
        limits=limits,
    )


def bootstrap_crossed(
    numerators: ArrayLike,
    denominators: ArrayLike | None = None,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    level: float = 0.95,
    limits: Limits = NO_LIMITS,
) -> Estimate:
    """Estimate a mean or pooled ratio over seeds x clips, with an interval for both.

    A clip that fails under some seeds keeps its other values and gets a smaller weight.

    Args:
        numerators: [S, C] for S seeds and C clips, in the same order under every seed.
        denominators: [S, C]; None for the mean of the numerators.
        seed, n_resamples: seed and number of resamples.
        level: level of the two-sided interval.
        limits: smallest and largest possible mean, which the interval does not pass.
    Raises:
        ValueError: the arguments are not tables of seeds x clips, or their shapes differ.
    """
    return _estimate(_tables(numerators, denominators), seed, n_resamples, level, limits)


def paired_crossed(
    first_numerators: ArrayLike,
    second_numerators: ArrayLike,
    first_denominators: ArrayLike | None = None,
    second_denominators: ArrayLike | None = None,
    *,
    seed: int = 0,
    n_resamples: int = 2000,
    level: float = 0.95,
) -> Estimate:
    """Estimate second minus first over the same seeds x clips, for means or pooled ratios.

    The interval is that of the differences, so shared effects (hard clips, lucky seeds) cancel.
    Seeds pair by position; for a side without training, repeat its row S times. A value that fails
    on one side fails on both.

    Args:
        first_numerators, second_numerators: [S, C].
        first_denominators, second_denominators: [S, C], both or neither; None for means.
        seed, n_resamples, level: as in `bootstrap_crossed`.
    Raises:
        ValueError: the arguments are not tables of seeds x clips, their shapes differ, or only
            one side has denominators.
    """
    if (first_denominators is None) != (second_denominators is None):
        raise ValueError(
            "denominators on one side only: give both for pooled ratios, neither for means"
        )
    first = _tables(first_numerators, first_denominators)
    second = _tables(second_numerators, second_denominators)
    if first.shape != second.shape:
        raise ValueError(
            f"{first.shape[1:]} and {second.shape[1:]} seeds x clips: pairs need equal counts"
        )
    return _estimate(np.concatenate([first, second]), seed, n_resamples, level, NO_LIMITS)


def judge(difference: Estimate, *, better: Direction, margin: float | None = None) -> Verdict:
    """Return the verdict that a difference (second minus first) allows about the second.

    - "better": the whole interval lies on the good side of 0.
    - "no worse": the bad end of the interval lies within the margin. The second may still be a
      little worse. With 95 % intervals this is a non-inferiority test at a nominal one-sided
      2.5 %. If the true loss equals the margin, simulated normal values pass in 3 % of cases, with
      5 clips as with 100.
    - "worse": the whole interval lies on the bad side of 0, and beyond the margin if there is one.
    - "worse, margin undecided": the whole interval lies on the bad side of 0 and contains the
      margin.
    - "undecided": anything else, and unknown intervals. More clips or seeds may decide.

    Args:
        better: direction of the measured value that is good.
        margin: largest loss that does not matter, >= 0 and in the value's unit, chosen before
            measuring. Without a margin, the verdict is never "no worse".
    Raises:
        ValueError: unknown direction, or a margin that is negative or not finite.
    """
    if better not in get_args(Direction):
        raise ValueError(f"better={better!r}: known are {', '.join(get_args(Direction))}")
    if margin is not None and not 0 <= margin < math.inf:
        raise ValueError(f"margin {margin}: must be >= 0 and finite, the largest tolerable loss")
    if math.isnan(difference.low) or math.isnan(difference.high):
        return "undecided"
    low, high = difference.low, difference.high
    if better == "lower":
        low, high = -high, -low
    if low > 0:
        return "better"
    if margin is not None and low >= -margin:
        return "no worse"
    if high < -(margin or 0.0):
        return "worse"
    return "worse, margin undecided" if high < 0 else "undecided"


def pearson(x: Sequence[float], y: Sequence[float]) -> tuple[float, float, float]:
    """Return the Pearson correlation r and the ends of its 95 % interval (Fisher's transform).

    r is NaN with fewer than 3 points or without spread. The interval is NaN with fewer than
    4 points or if r is 1 or -1.
    """
    from scipy.stats import pearsonr

    if len(x) < 3 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan, math.nan, math.nan
    found = pearsonr(x, y)
    r = float(found.statistic)
    if len(x) < 4 or abs(r) >= 1:
        return r, math.nan, math.nan
    interval = found.confidence_interval()
    return r, float(interval.low), float(interval.high)


def _tables(numerators: ArrayLike, denominators: ArrayLike | None) -> np.ndarray:
    """Stack numerators and denominators (ones if None) to [2, S, C]."""
    a = np.asarray(numerators, dtype=float)
    b = np.ones(a.shape) if denominators is None else np.asarray(denominators, dtype=float)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"shapes {a.shape} and {b.shape}: both must be [seeds, clips]")
    return np.stack([a, b])


def _estimate(
    tables: np.ndarray, seed: int, n_resamples: int, level: float, limits: Limits
) -> Estimate:
    """Estimate the ratio of tables [2 or 4, S, C] with its interval.

    A seed has failed on a clip if any of its numbers is not finite.
    """
    good = np.isfinite(tables).all(0)
    n_failed = int((~good).sum())
    tables = np.where(good, tables, 0.0)[:, good.any(1)][:, :, good.any(0)]
    tables = np.ascontiguousarray(tables)  # so that sums round as those of plain lists do
    mean = find_ratio(tables)
    if math.isnan(mean):  # every value failed, or all denominators are 0
        return Estimate(math.nan, math.nan, math.nan, 0, good.size)
    low, high = find_interval(tables, seed=seed, n_resamples=n_resamples, level=level)
    low, high = np.clip([low, high], min(limits[0], mean), max(limits[1], mean))
    return Estimate(mean, float(low), float(high), tables.shape[2], n_failed)
