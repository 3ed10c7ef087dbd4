"""Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019), zero-mean, in dB."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["BACKEND", "si_sdr"]

BACKEND = "tokgen (zero-mean, native rate)"


def si_sdr(reference: Tensor, estimate: Tensor) -> float:
    """Return 10 log10 |a s|^2 / |a s - e|^2, where a scales reference s to fit estimate e best.

    Args:
        reference, estimate: [N] or [1, N] of equal length.
    Returns:
        dB. +inf for a scaled copy, NaN if either is constant (silence) or not finite.
    Raises:
        ValueError: the lengths differ.
    """
    s, e = reference.flatten().double().cpu(), estimate.flatten().double().cpu()
    if s.shape != e.shape:
        raise ValueError(f"{len(s)} and {len(e)} samples: trim or pad to equal length first")
    s, e = s - s.mean(), e - e.mean()
    energy, power = (s @ s).item(), (e @ e).item()
    if not (1e-20 <= energy < math.inf and 1e-20 <= power < math.inf):
        return math.nan
    target = (s @ e) / energy * s
    signal, noise = target.square().sum().item(), (e - target).square().sum().item()
    if noise <= 1e-15 * signal:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
