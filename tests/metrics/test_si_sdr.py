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


def test_the_channels_of_stereo_are_one_signal():
    torch.manual_seed(0)
    left, right, noise = torch.randn(3, 16000)
    stereo = torch.stack([left, 0.1 * right])
    both = si_sdr(stereo, stereo + 0.01 * torch.stack([noise, noise]))
    joined = torch.cat([left, 0.1 * right])
    assert both == pytest.approx(si_sdr(joined, joined + 0.01 * noise.repeat(2)), abs=0.01)
    assert math.isfinite(si_sdr(torch.stack([left, 0 * left]), stereo))
    with pytest.raises(ValueError, match="2 and 1 channels: mix or copy"):
        si_sdr(stereo, left)
