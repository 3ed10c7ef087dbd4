"""Draw codes from the smallest set of most likely codes (the nucleus of Holtzman et al. 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["descending", "draw"]


def draw(logits: Tensor, top_p: float, uniform: Tensor) -> tuple[Tensor, Tensor]:
    """Draw one code per position from its nucleus (Holtzman et al. 2020).

    The draw inverts the cumulative distribution of logits [..., V] at noise [...] in (0, 1). It
    returns codes [...] and their log-probabilities [...] in the whole distribution. The nucleus
    always holds the most likely code.
    """
    log_p = logits.log_softmax(-1)
    ordered, order = descending(log_p)
    p = ordered.exp()
    cumulative = p.cumsum(-1)
    # A code belongs to the nucleus if the codes before it sum to less than top_p.
    size = p.sub_(cumulative).neg_().lt(top_p).sum(-1, keepdim=True).clamp_(min=1)
    threshold = uniform[..., None] * cumulative.gather(-1, size - 1)
    pick = torch.searchsorted(cumulative, threshold).minimum(size - 1)
    drawn, value = order.gather(-1, pick), ordered.gather(-1, pick)
    if log_p.device.type == "cpu":  # order equally likely codes as torch's sort does
        tied = (ordered == value).sum(-1) > 1
        drawn[tied] = log_p[tied].sort(dim=-1, descending=True)[1].gather(-1, pick[tied])
    return drawn[..., 0], value[..., 0]


def descending(log_p: Tensor) -> tuple[Tensor, Tensor]:
    """Sort log-probabilities float32 [..., V] in descending order; return values and indices.

    On a CPU, numpy sorts 64-bit integers several times faster than torch sorts floats with their
    indices. The high 32 bits hold the bits of -log_p, which are ordered as its values are because
    -log_p >= 0. The low bits hold the index.
    """
    if log_p.device.type != "cpu":
        return log_p.sort(dim=-1, descending=True)
    keys = (log_p.abs().view(torch.int32).long() << 32).add_(torch.arange(log_p.shape[-1]))
    keys.numpy().sort(axis=-1)
    return (keys >> 32).int().view(torch.float32).neg_(), keys & 0xFFFFFFFF
