"""Waveform codecs that apply a simple change."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from makers.audio import RATE
from tokgen.codec.base import WaveformCodec
from tokgen.codec.spec import WaveformSpec
from tokgen.codec.windows import fit_length


class Effect(WaveformCodec):
    """Applies `change` to audio [B, 1, N] and counts the calls."""

    def __init__(self, change: Callable[[Tensor], Tensor], name: str = "effect") -> None:
        self.spec, self.change, self.calls = WaveformSpec(name, RATE, 8000.0, "test"), change, 0

    def roundtrip(self, waveform: Tensor) -> Tensor:
        self.calls += 1
        return fit_length(self.change(waveform), waveform.shape[-1])


def late(waveform: Tensor, n: int) -> Tensor:
    """Delay by n samples; drop the first samples if n is negative."""
    return torch.nn.functional.pad(waveform, (n, -n))
