"""Bounds of a rate that was counted, by Clopper and Pearson."""

from __future__ import annotations

from scipy.stats import beta


def highest_rate(count: int, n: int) -> float:
    """Return the rate at which so few of n have a chance of 5 %, for one-sided 95 % confidence."""
    return float(beta.ppf(0.95, count + 1, n - count)) if count < n else 1.0


def lowest_rate(count: int, n: int) -> float:
    """Return the rate at which so many of n have a chance of 5 %."""
    return 1 - highest_rate(n - count, n)
