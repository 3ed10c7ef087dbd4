"""Statistics of codes: use of the codebooks, match between two encodings."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def level_histograms(codes: Sequence[Tensor], codebook_size: int) -> Tensor:
    """Counts [K, codebook_size] pooled over utterances codes [K, T]."""
    pooled = torch.cat([c.long().cpu() for c in codes], dim=-1)
    return torch.stack([torch.bincount(level, minlength=codebook_size) for level in pooled])


def entropy_bits(codes: Sequence[Tensor], codebook_size: int) -> Tensor:
    """Entropy [K] in bits of each level's pooled code distribution.

    Biased low by about (codebook_size - 1) / (2 N ln 2) bits for N frames: report N with it.
    """
    p = level_histograms(codes, codebook_size).double()
    p = p / p.sum(-1, keepdim=True)
    return -torch.special.xlogy(p, p).sum(-1) / math.log(2)


def codebook_use(codes: Sequence[Tensor], codebook_size: int) -> Tensor:
    """Entropy [K] in percent of the largest possible, log2(codebook_size)."""
    return 100 * entropy_bits(codes, codebook_size) / math.log2(codebook_size)


def perplexity(codes: Sequence[Tensor], codebook_size: int) -> Tensor:
    """2 ** entropy [K]: how many entries are in effective use."""
    return 2 ** entropy_bits(codes, codebook_size)


def token_match(a: Tensor, b: Tensor) -> Tensor:
    """Share of equal codes per level [K].

    Args:
        a, b: [K, T] of equal shape.
    Raises:
        ValueError: shapes differ; say which frames correspond by trimming first.
    """
    if a.shape != b.shape:
        raise ValueError(f"codes of shapes {tuple(a.shape)} and {tuple(b.shape)}: trim to match")
    return (a == b).double().mean(-1)
