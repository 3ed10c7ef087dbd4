"""Delay of a codec by cross-correlation."""

from __future__ import annotations

import torch

from makers.audio import RATE
from makers.effects import late
from tokgen.metrics.delay import align, delay_between, measure_delay, pink_noise


def test_codecs_without_delay():
    assert measure_delay(lambda w: 0.3 * w, RATE).samples == 0
    lost = measure_delay(torch.zeros_like, RATE)
    assert lost.samples == 0 and not lost.is_known and "not measurable" in str(lost)


def test_delay_is_found_in_noise():
    clean = pink_noise(20000, 0)
    noisy = late(clean, 100) + 0.1 * torch.randn(20000, generator=torch.Generator().manual_seed(1))
    assert delay_between(clean, noisy, 500).samples == 100
    assert not delay_between(clean, pink_noise(20000, 1), 500).is_known


def test_align_cuts_to_the_shared_part():
    ramp = torch.arange(10.0)
    for n in (3, -3, 0):
        reference, output = align(ramp, late(ramp, n), n)
        assert torch.equal(reference, output) and len(reference) == 10 - abs(n)
    assert align(ramp, ramp, 10) is None
