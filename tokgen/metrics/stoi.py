"""Short-time objective intelligibility (STOI) and its extended form (ESTOI) through `pystoi`.

Both are correlations of short-time envelopes in third-octave bands at 10 kHz: -1 to 1, higher is
better. STOI is of Taal et al. (2011), ESTOI of Jensen and Taal (2016). pystoi resamples as the
authors' code does. The channels of stereo audio are mixed.
"""

from __future__ import annotations

import warnings

from torch import Tensor

from tokgen.extras import require
from tokgen.metrics.measured import Measured, failed, why_no_pair
from tokgen.metrics.signals import mix

__all__ = ["BACKEND", "MIN_SECONDS", "measure_stoi"]

BACKEND = "pystoi (10 kHz)"
MIN_SECONDS = 0.4  # 30 frames of 12.8 ms, which an envelope has


def measure_stoi(
    reference: Tensor, estimate: Tensor, sample_rate: int, *, extended: bool = False
) -> Measured:
    """Measure the intelligibility of `estimate` compared with `reference`.

    Args:
        reference, estimate: [N] or [C, N] of equal length.
        sample_rate: Hz.
        extended: measure ESTOI.
    Raises:
        ValueError: the lengths differ.
    """
    if problem := why_no_pair(reference, estimate):
        return failed(problem)
    if reference.shape[-1] < MIN_SECONDS * sample_rate:
        return failed(f"shorter than {MIN_SECONDS:g} s, which STOI needs")
    a, b = (mix(w.detach()).double().cpu().numpy() for w in (reference, estimate))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Not enough STFT frames", RuntimeWarning)
        try:
            return Measured(float(require("pystoi").stoi(a, b, sample_rate, extended=extended)))
        except RuntimeWarning:
            return failed(f"less than {MIN_SECONDS:g} s of the reference is louder than silence")
