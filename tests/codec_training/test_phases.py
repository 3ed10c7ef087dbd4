"""Phases of a training, and the rate within a phase."""

from __future__ import annotations

import pytest

from tokgen.codec_training.phases import Phases, cooled


def test_phases_follow_one_another():
    phases = Phases(steps=100, continuous_steps=20, decoder_steps=10, adversarial_start=50)
    flags = [(p.quantize, p.decoder_only, p.adversarial) for p in map(phases.at, (0, 19, 20, 29))]
    assert flags == [(False, False, False)] * 2 + [(True, True, False)] * 2
    assert phases.at(30).decoder_only is False and phases.at(50).adversarial
    assert (phases.at(30).start, phases.at(99).end) == (30, 100)
    with pytest.raises(ValueError, match="exceed steps = 10"):
        Phases(10, 8, 4, 0)


def test_rate_rises_and_falls_within_a_phase():
    phase = Phases(100, 0, 0, 1000).at(0)
    factors = [cooled(s, phase, warmup=10, cooldown=0.4) for s in range(100)]
    assert factors[0] == pytest.approx(0.1) and factors[9] == 1.0 == factors[59]
    assert factors[80] == pytest.approx(0.5) and factors[99] == 0.05
