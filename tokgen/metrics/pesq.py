"""Wideband PESQ (ITU-T P.862.2) through the `pesq` package: 1.04 to 4.64, higher is better."""

from __future__ import annotations

import math

from torch import Tensor

from tokgen.extras import require
from tokgen.metrics.signals import RATE, at_16k

BACKEND = "pesq (P.862.2 wideband, 16 kHz)"
# The C code holds 50 utterances and writes past its arrays when it finds more: it crashes, or
# returns a number from overwritten memory. An utterance takes 0.2 s and 0.2 s of pause, so
# that shorter clips cannot reach 50.
MAX_SECONDS = 19.5


def pesq_wb(reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """Quality of `estimate` against `reference`.

    Args:
        reference, estimate: [N] or [1, N], equally long.
        sample_rate: Hz; both are resampled to 16 kHz.
    Returns:
        MOS-LQO, or NaN where PESQ finds no utterance or not enough audio, where a clip holds
        NaN or infinity, and over `MAX_SECONDS` (cut long clips: P.862 is meant for 8 to 12 s).
    Raises:
        ValueError: unequal lengths.
    """
    a, b = reference.flatten(), estimate.flatten()
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} samples: trim or pad to equal length first")
    package = require("pesq")
    if len(a) > MAX_SECONDS * sample_rate:
        return math.nan
    ours, theirs = at_16k(a, sample_rate), at_16k(b, sample_rate)
    if ours is None or theirs is None or not ours.any() or not theirs.any():
        return math.nan
    try:
        return float(package.pesq(RATE, ours.numpy(), theirs.numpy(), "wb"))
    except (package.PesqError, ValueError):  # ValueError: its own statistics came out as NaN
        return math.nan
