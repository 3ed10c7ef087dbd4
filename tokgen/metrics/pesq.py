"""Wideband PESQ (ITU-T P.862.2) through the `pesq` package: 1.04 to 4.64, higher is better."""

from __future__ import annotations

import math

from torch import Tensor

from tokgen.audio import resample
from tokgen.metrics.extras import require

RATE = 16_000
BACKEND = "pesq (P.862.2 wideband, 16 kHz)"


def pesq_wb(reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """Quality of `estimate` against `reference`.

    Args:
        reference, estimate: [N] or [1, N], equally long.
        sample_rate: Hz; both are resampled to 16 kHz.
    Returns:
        MOS-LQO, or NaN where PESQ finds no utterance or not enough audio.
    Raises:
        ValueError: unequal lengths.
    """
    a, b = reference.flatten(), estimate.flatten()
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} samples: trim or pad to equal length first")
    package = require("pesq")
    ours, theirs = (resample(x.float().cpu(), sample_rate, RATE).numpy() for x in (a, b))
    if not ours.any() or not theirs.any():
        return math.nan
    try:
        return float(package.pesq(RATE, ours, theirs, "wb"))
    except package.PesqError:
        return math.nan
