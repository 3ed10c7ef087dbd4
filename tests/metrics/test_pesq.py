"""PESQ: golden values, rates, and clips that it cannot score."""

from __future__ import annotations

import math

import pytest
import torch

from makers.audio import make_tone
from tokgen.metrics.pesq import MAX_SECONDS, NO_UTTERANCE, PesqScore, measure_pesq, pesq_wb

CLEAN = make_tone(2.0, 0)
NOISE = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1))


def test_golden_values():
    assert pesq_wb(CLEAN, CLEAN, 16000) == pytest.approx(4.644, abs=1e-3)
    values = [pesq_wb(CLEAN, CLEAN + a * NOISE, 16000) for a in (0.001, 0.01, 0.1)]
    assert values == pytest.approx([4.6248, 3.8257, 1.3455], abs=2e-3)
    assert pesq_wb(CLEAN, 0.5 * CLEAN, 16000) == pytest.approx(4.644, abs=0.01)


def test_other_rates_are_resampled():
    from tokgen.audio.resampling import resample

    clean, noisy = (resample(x, 16000, 48000) for x in (CLEAN, CLEAN + 0.01 * NOISE))
    wanted = pesq_wb(CLEAN, CLEAN + 0.01 * NOISE, 16000)
    assert pesq_wb(clean, noisy, 48000) == pytest.approx(wanted, abs=0.1)


def test_failures_are_nan_and_have_a_reason():
    silence = torch.zeros_like(CLEAN)
    for reference, estimate, reason in (
        (silence, silence, NO_UTTERANCE),
        (silence, CLEAN, NO_UTTERANCE),
        (CLEAN, silence, "silent"),
        (CLEAN[:, :100], CLEAN[:, :100], "shorter than 0.25 s, which PESQ needs"),
        (CLEAN * math.nan, CLEAN, "the reference has NaN or infinite samples"),
        (CLEAN, CLEAN * math.inf, "NaN or infinite samples"),
    ):
        found = measure_pesq(reference, estimate, 16000)
        assert math.isnan(found.value) and found.reason == reason
        assert math.isnan(pesq_wb(reference, estimate, 16000))
    with pytest.raises(ValueError, match="equal length"):
        pesq_wb(CLEAN, CLEAN[:, :-1], 16000)


def bursts(seconds):
    """More than 50 utterances in 30 seconds."""
    t = torch.arange(round(seconds * 16000)) / 16000
    noise = torch.randn(len(t), generator=torch.Generator().manual_seed(0))
    return 0.2 * noise * (t % 0.5 < 0.25)


def test_short_clips_are_scored_whole_and_long_clips_in_equal_pieces():
    noise = torch.randn(30 * 16000, generator=torch.Generator().manual_seed(1))
    reference = bursts(30)
    estimate = reference + torch.linspace(0.001, 0.02, len(noise)) * noise
    whole = measure_pesq(reference[: 19 * 16000], estimate[: 19 * 16000], 16000)
    assert whole.n_pieces == 1 and 1.1 < whole.value < 4.6
    found = measure_pesq(reference, estimate, 16000)  # would crash if it was scored whole
    halves = [
        pesq_wb(reference[i : i + 240000], estimate[i : i + 240000], 16000) for i in (0, 240000)
    ]
    assert found == PesqScore(pytest.approx(sum(halves) / 2), n_pieces=2)
    assert halves[0] - halves[1] > 0.1
    assert MAX_SECONDS < 50 * 0.2 + 49 * 0.2


def test_pieces_without_an_utterance_are_left_out():
    speech = bursts(15)
    long = torch.cat([speech, torch.zeros(15 * 16000), speech])
    noisy = long + 0.01 * torch.randn(len(long), generator=torch.Generator().manual_seed(1))
    assert measure_pesq(long, noisy, 16000) == PesqScore(
        pytest.approx((pesq_wb(long[:240000], noisy[:240000], 16000)
                       + pesq_wb(long[480000:], noisy[480000:], 16000)) / 2),
        n_pieces=3, n_silent=1,
    )  # fmt: skip
    lost = torch.where(torch.arange(len(long)) < 480000, long, 0)
    found = measure_pesq(long, lost, 16000)
    assert math.isnan(found.value) and found.reason == "silent, from 30.0 to 45.0 s"
    silence = measure_pesq(0 * long, noisy, 16000)
    assert silence.reason == NO_UTTERANCE and silence.n_silent == 3
