"""Transports: what they do to audio, how the gradient passes, and the errors of their names."""

from __future__ import annotations

import pytest
import torch

from makers.audio import RATE, make_tone
from tokgen.codec.stable.settings import StableDecoding, parse_transport
from tokgen.codec.stable.transports import make_transport, round_to_16_bits


def noise() -> torch.Generator:
    return torch.Generator().manual_seed(1)


def test_int16_rounds_and_clips() -> None:
    audio = torch.tensor([[[0.4 / 32768, 0.6 / 32768, 1.5, -1.5]]])
    expected = torch.tensor([[[0.0, 1 / 32768, 32767 / 32768, -1.0]]])
    assert torch.equal(make_transport("int16", RATE)(audio, noise()), expected)
    assert torch.equal(round_to_16_bits(audio), expected)


@pytest.mark.parametrize("name", ["int16", "dither", "gain:3", "resample:44100", "mp3:64", "opus"])
def test_the_gradient_passes(name: str) -> None:
    audio = make_tone(0.3, 0)[None].requires_grad_()
    carried = make_transport(name, RATE)(audio, noise())
    assert carried.shape == audio.shape
    carried.sum().backward()
    assert audio.grad is not None
    scale = carried.detach().norm() / audio.detach().norm() if name == "gain:3" else 1.0
    torch.testing.assert_close(audio.grad, torch.full_like(audio, float(scale)))


@pytest.mark.parametrize(
    ("name", "least_db"), [("resample:44100", 25), ("mp3:128", 15), ("opus:64", 10)]
)
def test_lossy_steps_keep_audio_in_place(name: str, least_db: float) -> None:
    audio = make_tone(1.0, 2)[None]
    change = make_transport(name, RATE)(audio, noise()) - audio
    assert 10 * torch.log10(audio.square().sum() / change.square().sum()) > least_db


def test_dither_and_gain_stay_within_their_limits() -> None:
    audio = make_tone(0.5, 0)[None]
    dithered = make_transport("dither", RATE)(audio, noise())
    assert 0.5 / 32768 < (dithered - audio).abs().max() <= 1.5 / 32768 + 1e-7
    gains = {
        round(float((make_transport("gain:2", RATE)(audio, g) / audio).nanmedian()), 5)
        for g in (torch.Generator().manual_seed(i) for i in range(9))
    }
    assert len(gains) > 5 and min(gains) >= 10**-0.1 and max(gains) <= 10**0.1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mp4:128", "did you mean mp3"),
        ("mp3:7", "8 to 320 kbps"),
        ("opus:x", "write a number after the colon"),
        ("int16:3", "int16 takes no value"),
        ("gain:30", "0 to 20 dB"),
        ("resample:44100.5", "whole number"),
    ],
)
def test_wrong_names(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StableDecoding(robust_to=(name,))


def test_one_name_alone_is_refused() -> None:
    with pytest.raises(ValueError, match=r"robust_to = 'int16': pass a tuple, \('int16',\)"):
        StableDecoding(robust_to="int16")


def test_values_have_defaults() -> None:
    assert parse_transport("mp3") == ("mp3", 128.0)
    assert parse_transport("opus:24") == ("opus", 24.0)
    assert parse_transport("int16") == ("int16", 0.0)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("steps", -1), ("rate", 0), ("temperature", 0), ("window_seconds", 0), ("margin", -0.1)],
)
def test_wrong_settings(setting: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{setting} is"):
        StableDecoding(**{setting: value})
