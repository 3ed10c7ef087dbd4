"""Discriminators: invariance, DAC's layers, saving."""

from __future__ import annotations

import torch

from makers.audio import make_tone
from tokgen.codec_training.discriminators.bands import SpectrumDiscriminator
from tokgen.codec_training.discriminators.ensemble import Discriminator


def test_discriminators_see_neither_level_nor_offset():
    torch.manual_seed(0)
    critic = Discriminator(periods=[2, 3], period_channels=[4, 8], windows=[256], channels=4)
    audio = make_tone(0.2, 0)[None]
    outs = [critic(x) for x in (audio, 0.3 * audio, audio + 0.1)]
    assert len(outs[0]) == 3
    for other in outs[1:]:
        for a, b in zip(outs[0], other, strict=True):
            torch.testing.assert_close(a[-1], b[-1], atol=1e-4, rtol=1e-3)


def test_default_discriminators_have_dacs_layers():
    critic = Discriminator()
    features = critic(torch.randn(1, 1, 4096))
    assert [len(f) for f in features] == [6] * 5 + [5 * 5 + 1] * 3
    assert features[0][4].shape[1] == 1024


def test_discriminator_saves_and_loads(tmp_path):
    critic = Discriminator(periods=[2], period_channels=[4, 8], windows=[128], channels=2)
    critic.save_pretrained(tmp_path)
    again = Discriminator.from_pretrained(tmp_path)
    audio = torch.randn(1, 1, 1000)
    assert critic(audio)[0][-1].equal(again(audio)[0][-1])


def test_narrow_bands_are_right_in_bfloat16() -> None:
    torch.manual_seed(0)
    critic = SpectrumDiscriminator(window=128, channels=8)
    for _ in range(4):  # wrong values are those of free memory, which differ
        waveform = 0.1 * torch.randn(4, 1, 3200)
        with torch.no_grad():
            exact = critic(waveform)
            with torch.autocast("cpu", torch.bfloat16):
                rounded = critic(waveform)
        for a, b in zip(exact, rounded, strict=True):
            assert (a - b.float()).abs().max() < 0.05 * a.abs().max()
