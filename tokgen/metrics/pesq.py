"""Wideband PESQ (ITU-T P.862.2) through the `pesq` package: 1.04 to 4.64, higher is better."""

from __future__ import annotations

import math

from torch import Tensor

from tokgen.extras import require
from tokgen.metrics.signals import RATE, at_16k

__all__ = ["BACKEND", "MAX_SECONDS", "pesq_wb"]

BACKEND = "pesq (P.862.2 wideband, 16 kHz)"
# The C code has room for 50 utterances and writes past its arrays if it finds more: it crashes or
# returns a number from overwritten memory. An utterance and its pause take at least 0.4 s, so
# clips below this limit cannot have 50.
MAX_SECONDS = 19.5


def pesq_wb(reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """Return the quality of `estimate` compared with `reference`.

    Args:
        reference, estimate: [N] or [1, N] of equal length.
        sample_rate: Hz; both are resampled to 16 kHz.
    Returns:
        MOS-LQO. NaN if PESQ finds no utterance or too little audio, if a clip contains NaN or
        infinity, or above `MAX_SECONDS` (cut long clips: P.862 is meant for 8 to 12 s).
    Raises:
        ValueError: the lengths differ.
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
    except (package.PesqError, ValueError):  # ValueError: its statistics are NaN
        return math.nan
