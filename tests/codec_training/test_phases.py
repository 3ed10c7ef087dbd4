"""Phases of a training, and the rate within a phase."""

from __future__ import annotations

import pytest

from tokgen.codec_training.phases import Phase, phase_at, rate_factor
from tokgen.codec_training.settings import CodecTrainingSettings


def test_phases_follow_one_another():
    settings = CodecTrainingSettings(steps=100, continuous_steps=20, decoder_steps=10)
    phases = [phase_at(step, settings) for step in (0, 19, 20, 29, 30, 99)]
    assert [p.quantize for p in phases] == [False] * 2 + [True] * 4
    assert [p.decoder_only for p in phases] == [False] * 2 + [True] * 2 + [False] * 2
    assert [(p.start, p.end) for p in phases[::2]] == [(0, 20), (20, 30), (30, 100)]
    with pytest.raises(ValueError, match="exceed steps = 10"):
        CodecTrainingSettings(steps=10, continuous_steps=8, decoder_steps=4)


def test_rate_rises_and_falls_within_a_phase():
    factors = [rate_factor(s, Phase(0, 100), warmup=10, cooldown=0.4) for s in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0 == factors[59]
    assert factors[80] == pytest.approx(0.5) and factors[99] == 0.05
