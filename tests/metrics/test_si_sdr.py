"""SI-SDR against its closed form."""

from __future__ import annotations

import math

import pytest
import torch

from tokgen.metrics.si_sdr import si_sdr


def test_si_sdr_against_its_closed_form():
    n = 16000
    t = torch.arange(n) / n
    signal, noise = torch.sin(2 * math.pi * 100 * t), torch.sin(2 * math.pi * 333 * t)
    for ratio in (1.0, 0.1, 0.01):
        wanted = -20 * math.log10(ratio)
        assert si_sdr(signal, 3 * (signal + ratio * noise) + 0.2) == pytest.approx(wanted, abs=1e-3)
    assert si_sdr(signal, 2 * signal) == math.inf
    assert math.isnan(si_sdr(torch.zeros(10), torch.randn(10)))
