"""Wideband PESQ (ITU-T P.862.2) through the `pesq` package: 1 to 4.65, higher is better.

Clips up to `MAX_SECONDS` are scored whole. A longer clip is cut into the fewest equal pieces of at
most `MAX_SECONDS`, at the same places in both signals, and its score is the mean over the pieces.
Pieces in which the reference has no utterance are left out. The channels of stereo audio are mixed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from tokgen.extras import require
from tokgen.metrics.signals import RATE, at_16k, mix, why_unusable

__all__ = ["BACKEND", "MAX_SECONDS", "NO_UTTERANCE", "PesqScore", "measure_pesq", "pesq_wb"]

BACKEND = "pesq (P.862.2 wideband, 16 kHz)"
# The C code has room for 50 utterances and writes past its arrays if it finds more: it crashes or
# returns a number from overwritten memory. An utterance and its pause take at least 0.4 s, so
# audio below this limit cannot have 50. P.862 is meant for 8 to 12 s, and every piece of a longer
# clip has at least half the limit.
MAX_SECONDS = 19.5
NO_UTTERANCE = "PESQ finds no utterance in the reference"


@dataclass(frozen=True)
class PesqScore:
    """PESQ of one clip.

    Attributes:
        value: MOS-LQO; NaN if it cannot be measured.
        reason: why the value is NaN; "" for a number.
        n_pieces: pieces that the clip was cut into; 1 for a whole clip.
        n_silent: pieces that were left out because the reference has no utterance in them.
    """

    value: float
    reason: str = ""
    n_pieces: int = 1
    n_silent: int = 0


def measure_pesq(reference: Tensor, estimate: Tensor, sample_rate: int) -> PesqScore:
    """Measure the quality of `estimate` compared with `reference`, as the module describes.

    Args:
        reference, estimate: [N] or [C, N] of equal length.
        sample_rate: Hz; both are resampled to 16 kHz.
    Raises:
        ValueError: the lengths differ.
    """
    a, b = mix(reference), mix(estimate)
    if a.shape != b.shape:
        raise ValueError(f"{len(a)} and {len(b)} samples: trim or pad to equal length first")
    for signal, name in ((a, "the reference has "), (b, "")):
        if problem := why_unusable(signal):
            return PesqScore(math.nan, name + problem)
    n = math.ceil(len(a) / (MAX_SECONDS * sample_rate))
    if n == 1:
        return _measure_piece(a, b, sample_rate)
    cuts = [round(i * len(a) / n) for i in range(n + 1)]
    total, weight, n_silent = 0.0, 0, 0
    for start, end in pairwise(cuts):
        piece = _measure_piece(a[start:end], b[start:end], sample_rate)
        if piece.reason == NO_UTTERANCE:
            n_silent += 1
        elif piece.reason:
            where = f"from {start / sample_rate:.1f} to {end / sample_rate:.1f} s"
            return PesqScore(math.nan, f"{piece.reason}, {where}", n)
        else:
            total, weight = total + piece.value * (end - start), weight + end - start
    if not weight:
        return PesqScore(math.nan, NO_UTTERANCE, n, n_silent)
    return PesqScore(total / weight, "", n, n_silent)


def pesq_wb(reference: Tensor, estimate: Tensor, sample_rate: int) -> float:
    """Return the value of `measure_pesq`: MOS-LQO, or NaN if it cannot be measured."""
    return measure_pesq(reference, estimate, sample_rate).value


def _measure_piece(reference: Tensor, estimate: Tensor, sample_rate: int) -> PesqScore:
    """Measure [N] and [N] of at most `MAX_SECONDS`, without cutting."""
    package = require("pesq")
    ours, theirs = at_16k(reference, sample_rate), at_16k(estimate, sample_rate)
    assert ours is not None and theirs is not None
    if not ours.any():
        return PesqScore(math.nan, NO_UTTERANCE)
    if not theirs.any():
        return PesqScore(math.nan, "silent")
    try:
        return PesqScore(float(package.pesq(RATE, ours.numpy(), theirs.numpy(), "wb")))
    except package.NoUtterancesError:
        return PesqScore(math.nan, NO_UTTERANCE)
    except package.BufferTooShortError:
        return PesqScore(math.nan, "shorter than 0.25 s, which PESQ needs")
    except (package.PesqError, ValueError) as error:  # ValueError: its statistics are NaN
        return PesqScore(math.nan, f"PESQ failed: {error}")
