"""Scale-invariant signal-to-distortion ratio (Le Roux et al. 2019), zero-mean, in dB.

The channels of stereo audio are one signal, with one scale. Each is made zero-mean.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["BACKEND", "si_sdr"]

BACKEND = "tokgen (zero-mean, native rate)"


def si_sdr(reference: Tensor, estimate: Tensor) -> float:
    """Return 10 log10 |a s|^2 / |a s - e|^2, where a scales reference s to fit estimate e best.

    Args:
        reference, estimate: [N] or [C, N] of equal length and channels.
    Returns:
        dB. +inf for a scaled copy, NaN if either is constant (silence) or not finite.
    Raises:
        ValueError: the lengths or the channels differ.
    """
    n, m = reference.shape[-1], estimate.shape[-1]
    if n != m:
        raise ValueError(f"{n} and {m} samples: trim or pad to equal length first")
    s, e = (torch.atleast_2d(x.double().cpu()).flatten(0, -2) for x in (reference, estimate))
    if len(s) != len(e):
        raise ValueError(f"{len(s)} and {len(e)} channels: mix or copy channels first")
    s, e = ((x - x.mean(-1, keepdim=True)).flatten() for x in (s, e))
    energy, power = (s @ s).item(), (e @ e).item()
    if not (1e-20 <= energy < math.inf and 1e-20 <= power < math.inf):
        return math.nan
    target = (s @ e) / energy * s
    signal, noise = target.square().sum().item(), (e - target).square().sum().item()
    if noise <= 1e-15 * signal:
        return math.inf
    return 10 * math.log10(signal / noise) if signal > 0 else -math.inf
