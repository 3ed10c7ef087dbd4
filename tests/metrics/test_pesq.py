"""PESQ: golden values, rates, and clips that it cannot score."""

from __future__ import annotations

import math

import pytest
import torch

from makers.audio import make_tone
from tokgen.metrics.pesq import MAX_SECONDS, pesq_wb

CLEAN = make_tone(2.0, 0)
NOISE = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1))


def test_golden_values():
    assert pesq_wb(CLEAN, CLEAN, 16000) == pytest.approx(4.644, abs=1e-3)
    values = [pesq_wb(CLEAN, CLEAN + a * NOISE, 16000) for a in (0.001, 0.01, 0.1)]
    assert values == pytest.approx([4.6248, 3.8257, 1.3455], abs=2e-3)
    assert pesq_wb(CLEAN, 0.5 * CLEAN, 16000) == pytest.approx(4.644, abs=0.01)


def test_other_rates_are_resampled():
    from tokgen.audio.files import resample

    clean, noisy = (resample(x, 16000, 48000) for x in (CLEAN, CLEAN + 0.01 * NOISE))
    wanted = pesq_wb(CLEAN, CLEAN + 0.01 * NOISE, 16000)
    assert pesq_wb(clean, noisy, 48000) == pytest.approx(wanted, abs=0.1)


def test_failures_are_nan():
    assert math.isnan(pesq_wb(torch.zeros(1, 16000), torch.zeros(1, 16000), 16000))
    assert math.isnan(pesq_wb(CLEAN[:, :100], CLEAN[:, :100], 16000))
    with pytest.raises(ValueError, match="equal length"):
        pesq_wb(CLEAN, CLEAN[:, :-1], 16000)


def test_clips_with_more_than_fifty_utterances_fail():
    def bursts(seconds):
        t = torch.arange(round(seconds * 16000)) / 16000
        noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0))
        return 0.2 * noise * (t % 0.5 < 0.25)

    assert pesq_wb(bursts(19), bursts(19), 16000) == pytest.approx(4.644, abs=1e-3)
    assert math.isnan(pesq_wb(bursts(30), bursts(30), 16000))  # would crash without the limit
    assert MAX_SECONDS < 50 * 0.2 + 49 * 0.2
