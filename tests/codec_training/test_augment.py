"""Augmentation: level, phase and loudness."""

from __future__ import annotations

import math

import pytest
import torch

from makers.audio import make_tone
from tokgen.codec_training.augment import augment, loudness_lufs


def test_augmentation_changes_level_and_phase_only():
    audio = make_tone(0.5, 2)[None].repeat(3, 1, 1)
    g = torch.Generator().manual_seed(0)
    out = augment(audio, 16000, loudness=None, gain_db=6.0, phase=True, generator=g)
    ratio = out.square().mean((1, 2)) / audio.square().mean((1, 2))
    assert ((10 * ratio.log10()).abs() < 6.2).all() and ratio.std() > 0.05
    a, b = (torch.fft.rfft(x[0, 0]).abs() for x in (audio, out))
    torch.testing.assert_close(b[10:-10], a[10:-10] * ratio[0].sqrt(), rtol=2e-2, atol=0.5)


@pytest.mark.parametrize("rate", [16000, 48000])
def test_loudness_of_the_standards_reference_tone(rate):
    t = torch.arange(rate) / rate
    tone = torch.sin(2 * torch.pi * 997 * t)[None, None]
    assert loudness_lufs(tone, rate).item() == pytest.approx(-3.01, abs=0.02)
    low = torch.sin(2 * torch.pi * 30 * t)[None, None]
    assert loudness_lufs(low, rate).item() < -8  # the high-pass of the second filter


def test_crops_are_brought_to_a_loudness_and_silence_stays_silent():
    audio = torch.cat([0.1 * make_tone(0.5, 2)[None], torch.zeros(1, 1, 8000)])
    g = torch.Generator().manual_seed(0)
    out = augment(audio, 16000, loudness=-23.0, gain_db=0.0, phase=False, generator=g)
    assert loudness_lufs(out, 16000)[0].item() == pytest.approx(-23, abs=0.01)
    assert out[1].eq(0).all()


def test_the_channels_of_an_item_change_alike():
    audio = torch.stack([make_tone(0.5, 2)[0], 0.1 * make_tone(0.5, 2)[0]])[None]
    g = torch.Generator().manual_seed(0)
    out = augment(audio, 16000, loudness=-16.0, gain_db=30.0, phase=True, generator=g)
    torch.testing.assert_close(out[:, 1], 0.1 * out[:, 0], rtol=1e-3, atol=1e-6)
    assert out.abs().max() <= 1


def test_loudness_adds_the_powers_of_the_channels():
    tone = make_tone(0.5, 2)[None]
    both = loudness_lufs(tone.repeat(1, 2, 1), 16000)
    torch.testing.assert_close(both, loudness_lufs(tone, 16000) + 10 * math.log10(2))
