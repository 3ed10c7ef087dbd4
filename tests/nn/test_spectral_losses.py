"""Distances between spectra: zero for equal audio, growing with noise."""

from __future__ import annotations

import pytest
import torch

from makers.audio import make_tone
from tokgen.nn.spectral_losses import MultiScaleMel, SpectralDistance


@pytest.mark.parametrize("loss", [MultiScaleMel(16000), SpectralDistance()])
def test_distances_are_zero_for_equals_and_grow_with_noise(loss):
    clean = make_tone(0.5, 0)[None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    values = [loss(clean + a * noise, clean).item() for a in (0.0, 0.001, 0.01, 0.1)]
    assert values[0] == 0.0
    assert values == sorted(values) and values[1] > 0


def test_mel_ignores_polarity_and_spectral_distance_does_not():
    clean = make_tone(0.5, 1)[None]
    assert MultiScaleMel(16000)(-clean, clean).item() == pytest.approx(0, abs=1e-6)
    assert SpectralDistance()(-clean, clean).item() > 1


def test_drawn_mel_scales_are_unbiased():
    clean, other = make_tone(0.3, 0)[None], make_tone(0.3, 1)[None]
    full = MultiScaleMel(16000)(other, clean).item()
    drawn = MultiScaleMel(16000, scales_per_step=2)
    torch.manual_seed(0)
    mean = sum(drawn(other, clean).item() for _ in range(60)) / 60
    assert mean == pytest.approx(full, rel=0.15)
    assert drawn.eval()(other, clean).item() == pytest.approx(full)


def test_windows_and_mels_must_be_equally_many():
    with pytest.raises(ValueError, match="2 windows but 1 mel counts"):
        MultiScaleMel(16000, windows=(256, 512), mels=(20,))
