"""Entropy of sequences of codes: how well the codes before tell the next one.

The n-gram entropy of a level is the entropy of its runs of n codes, in bits. The difference of
n and n - 1 is the entropy of a code after the n - 1 codes before it: a bound on the bits that a
model with so much memory needs. All are biased low if there are few frames, the more the longer the
runs, so they come with their number of runs and with Miller and Madow's correction.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

__all__ = ["NgramEntropy", "ngram_entropies", "ngram_entropy"]


@dataclass(frozen=True)
class NgramEntropy:
    """Entropy of the runs of n codes of one level.

    Attributes:
        n: codes in a run.
        bits: entropy of the runs; NaN without a run.
        corrected: with (different runs - 1) / (2 runs) nats more (Miller and Madow 1955), at most
            n log2(codebook_size).
        n_runs: runs in all clips. A run does not pass from one clip to the next.
        n_different: different runs among them. If it is close to `n_runs`, there are too few.
    """

    n: int
    bits: float
    corrected: float
    n_runs: int
    n_different: int


def ngram_entropy(codes: Sequence[Tensor], n: int, codebook_size: int) -> NgramEntropy:
    """Return the entropy of runs of n codes.

    Args:
        codes: [T] of each clip, of one level.
        n: at least 1.
        codebook_size: entries of the level.
    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"n = {n}: must be at least 1")
    clips = [clip.long().cpu().numpy() for clip in codes if len(clip) >= n]
    if not clips:
        return NgramEntropy(n, math.nan, math.nan, 0, 0)
    runs = np.concatenate([np.lib.stride_tricks.sliding_window_view(c, n) for c in clips])
    _, counts = np.unique(runs, axis=0, return_counts=True)
    p = counts / len(runs)
    bits = max(0.0, -float((p * np.log2(p)).sum()))
    bias = (len(counts) - 1) / (2 * len(runs) * math.log(2))
    corrected = min(bits + bias, n * math.log2(codebook_size))
    return NgramEntropy(n, bits, corrected, len(runs), len(counts))


def ngram_entropies(
    codes: Sequence[Sequence[Tensor] | Tensor], codebook_size: int, longest: int = 3
) -> list[list[NgramEntropy]]:
    """Return `ngram_entropy` of each level for runs of 1 to `longest` codes: K lists of `longest`.

    Args:
        codes: [K, T] of each clip, or K tensors of any lengths (`live_codes`).
    """
    levels = zip(*codes, strict=True)
    return [
        [ngram_entropy(level, n, codebook_size) for n in range(1, longest + 1)] for level in levels
    ]
