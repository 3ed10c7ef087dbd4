"""Audio for tests."""

from __future__ import annotations

import math

import torch
from torch import Tensor

RATE = 16000


def make_tone(seconds: float, seed: int, sample_rate: int = RATE) -> Tensor:
    """Something like a voice [1, N]: wavering harmonics in syllables, over a little noise."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 100 + 80 * torch.rand(1, generator=generator)
    phase = 2 * math.pi * (pitch * t + 1.5 * torch.sin(2 * math.pi * 3 * t))
    weights = torch.rand(12, generator=generator) / torch.arange(1, 13)
    voice = sum(w * torch.sin((k + 1) * phase) for k, w in enumerate(weights))
    syllables = 0.55 + 0.45 * torch.sin(2 * math.pi * 4 * t + seed)
    noise = 0.01 * torch.randn(len(t), generator=generator)
    return (0.3 * voice * syllables / weights.sum() + noise)[None]
