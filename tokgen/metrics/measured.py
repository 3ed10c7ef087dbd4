"""A value of a metric, or the reason why there is none."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from tokgen.metrics.signals import mix, why_unusable

__all__ = ["Measured", "failed", "why_no_pair"]


@dataclass(frozen=True)
class Measured:
    """A metric of one clip.

    Attributes:
        value: NaN if it cannot be measured.
        reason: why the value is NaN; "" for a number.
    """

    value: float
    reason: str = ""


def failed(reason: str) -> Measured:
    """Return a value that could not be measured."""
    return Measured(math.nan, reason)


def why_no_pair(reference: Tensor, estimate: Tensor) -> str:
    """Return why two waveforms [N] or [C, N] cannot be compared; "" if they can.

    Raises:
        ValueError: the lengths differ.
    """
    n, m = reference.shape[-1], estimate.shape[-1]
    if n != m:
        raise ValueError(f"{n} and {m} samples: trim or pad to equal length first")
    for prefix, waveform in (("the reference: ", reference), ("", estimate)):
        if problem := why_unusable(waveform) or ("" if mix(waveform).any() else "silent"):
            return prefix + problem
    return ""
