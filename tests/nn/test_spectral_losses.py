"""Distances between spectra: zero for equal audio, growing with noise."""

from __future__ import annotations

import pytest
import torch

from makers.audio import make_tone
from makers.vectors import load_vectors
from tokgen.nn.spectral_losses import WINDOWS, MelPower, MultiScaleMel, SpectralDistance


@pytest.mark.parametrize("loss", [MultiScaleMel(16000), SpectralDistance(), MelPower(16000)])
def test_distances_are_zero_for_equals_and_grow_with_noise(loss):
    clean = make_tone(0.5, 0)[None]
    noise = torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    values = [loss(clean + a * noise, clean).item() for a in (0.0, 0.001, 0.01, 0.1)]
    assert values[0] == 0.0
    assert values == sorted(values) and values[1] > 0


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("audiocraft_default", {"windows": (64, 128, 256, 512, 1024), "f_min": 64.0}),
        ("paper_scales_e5_11", {"windows": WINDOWS}),
    ],
)
def test_mel_power_distance_of_the_reference(name, more):
    """The value and the gradient of audiocraft's MultiScaleMelSpectrogramLoss."""
    v = load_vectors("audiocraft_losses")
    loss = MelPower(24000, **more)
    x = v["x"].clone().requires_grad_()
    value = loss(x, v["y"])
    value.backward()
    torch.testing.assert_close(value, v[f"msspec_{name}"].float(), rtol=1e-5, atol=0)
    gradient = v[f"msspec_grad_{name}"]
    torch.testing.assert_close(x.grad, gradient, rtol=1e-5, atol=1e-5 * float(gradient.abs().max()))


def test_log_mel_of_the_reference():
    v = load_vectors("audiocraft_losses")
    power = MelPower(24000, windows=(256,), n_mels=16, f_min=64.0).power(v["x"], 256)
    torch.testing.assert_close((1e-5 + power).log10().mT, v["mel_log_256"], rtol=1e-5, atol=1e-5)


def test_mel_power_of_stereo_is_the_mean_of_its_channels():
    a, b = (make_tone(0.3, seed)[None] for seed in range(2))
    loss = MelPower(16000)
    left, right, both = (
        loss(a, b),
        loss(2 * a, b),
        loss(torch.cat([a, 2 * a], 1), b.repeat(1, 2, 1)),
    )
    torch.testing.assert_close(both, (left + right) / 2)


@pytest.mark.parametrize("loss", [MultiScaleMel(16000), SpectralDistance()])
def test_every_channel_of_stereo_counts(loss):
    a, b = (make_tone(0.3, seed)[None] for seed in range(2))
    same, half = loss(torch.cat([a, a], 1), torch.cat([b, b], 1)), loss(a, b)
    torch.testing.assert_close(same, half)
    one = loss(torch.cat([b, a], 1), torch.cat([b, b], 1))
    torch.testing.assert_close(one, half / 2, rtol=1e-3, atol=0)


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
