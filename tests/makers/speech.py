"""Real speech for metrics: five clips and the same with noise."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from makers.paths import ALLISON
from tokgen.corpus.listed import open_corpus

FIVE = ("agent-alreadyon", "auth-incorrect", "conf-getpin", "conf-invalid", "conf-noempty")


@cache
def five_clips() -> list[tuple[Tensor, Tensor]]:
    """Return pairs of a clip [1, N] at 16 kHz and the same with white noise of -40 dB."""
    corpus = open_corpus(ALLISON).select(ids=FIVE)
    generator = torch.Generator().manual_seed(0)
    clips = {u.id: u.waveform for u in corpus.utterances(16000, rejected=[])}
    pairs = []
    for name in FIVE:
        clean = clips[name]
        pairs.append((clean, clean + 0.01 * torch.randn(clean.shape, generator=generator)))
    return pairs
