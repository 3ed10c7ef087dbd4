"""Tests of loudness, low anchors and spectrograms."""

from __future__ import annotations

import base64
import io
import math
import re
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import torch
from scipy.signal import lfilter

from makers.pages import data_of, page_of, sounds_of
from makers.runs import EDGE, RATE, make_run, tone
from tokgen.audio.files import read_audio, write_audio
from tokgen.codec_training.augment import K_FILTERS
from tokgen.report.clips import integrated_loudness, low_pass, spectrograms, top_frequency
from tokgen.report.reader import read_run


def exact_loudness(samples: np.ndarray) -> float:
    """Reference implementation of BS.1770 at 48 kHz, with its filters."""
    for numerator, denominator in K_FILTERS:
        samples = lfilter(numerator, denominator, samples)
    blocks = [samples[i : i + 19200] for i in range(0, len(samples) - 19200 + 1, 4800)]
    power = np.array([np.mean(block**2) for block in blocks])
    level = -0.691 + 10 * np.log10(power + 1e-20)
    power = power[level > -70]
    level = -0.691 + 10 * np.log10(power)
    gate = -0.691 + 10 * np.log10(power.mean()) - 10
    return -0.691 + 10 * np.log10(power[level > gate].mean())


def test_loudness_equals_the_standard():
    noise = torch.randn(1, 48_000 * 4, generator=torch.Generator().manual_seed(0)) * 0.1
    noise[:, 60_000:120_000] *= 0.003  # a pause below the relative gate
    found = integrated_loudness(noise, 48_000)
    assert found == pytest.approx(exact_loudness(noise[0].double().numpy()), abs=0.05)
    assert integrated_loudness(tone(997, 3, 1.0, 48_000), 48_000) == pytest.approx(-3.01, abs=0.03)
    assert integrated_loudness(torch.zeros(1, 48_000), 48_000) == -math.inf
    assert integrated_loudness(tone(997, 0.2, 1.0, 48_000), 48_000) == pytest.approx(-3, abs=0.1)


def test_columns_have_the_loudness_of_the_original(plain_run: Path, plain_page: str):
    sounds = sounds_of(plain_page)
    assert len(sounds) == 3 * 4  # each with a low anchor
    loudness = {k: integrated_loudness(read_audio(v)[0], RATE) for k, v in sounds.items()}
    assert max(loudness.values()) - min(loudness.values()) < 0.02
    original = (plain_run / "samples" / "000.original.wav").read_bytes()
    kept, _ = read_audio(original)
    assert torch.equal(read_audio(sounds["audio-0-0-0"])[0], kept)  # bit for bit
    facts = data_of(plain_page)["settings"]["audio"]["sounds"]
    generated = next(f for f in facts if f["column"] == "speech-16k generated")
    first = next(f for f in facts if f["column"] == "original")
    gained = first["loudness_lufs"] - generated["loudness_lufs"]
    assert generated["gain_db"] == pytest.approx(gained, abs=0.02) and gained > 8
    assert first["gain_db"] == 0
    assert (
        f'title="speech-16k generated: gain {generated["gain_db"]:.1f} dB, 16000 Hz' in plain_page
    )


def test_all_columns_are_lowered_if_one_would_clip(tmp_path: Path):
    run = make_run(tmp_path / "r", n_clips=1)
    spiky = tone(900, 0.6, 0.05)
    spiky[0, 100:104] = 0.9  # a quiet sound with a peak, which the gain raises
    write_audio(run / "samples" / "000.generated.wav", spiky, RATE)
    page = page_of(run)
    waves = [read_audio(v)[0] for v in sounds_of(page).values()]
    assert max(float(w.abs().max()) for w in waves) == pytest.approx(1.0, abs=1e-3)
    facts = data_of(page)["settings"]["audio"]["sounds"]
    assert facts[0]["gain_db"] < -5
    loudness = [integrated_loudness(w, RATE) for w in waves]
    assert max(loudness) - min(loudness) < 0.1


def test_no_gain_for_silence_and_without_an_original(tmp_path: Path):
    run = make_run(tmp_path / "r", n_clips=2)
    write_audio(run / "samples" / "000.generated.wav", torch.zeros(1, 9600), RATE)
    (run / "samples" / "001.original.wav").unlink()
    page = page_of(run)
    gains = {(f["utterance"], f["column"]): f for f in data_of(page)["settings"]["audio"]["sounds"]}
    silent = gains["clip0", "speech-16k generated"]
    assert silent["gain_db"] == 0 and silent["loudness_lufs"] is None
    assert gains["clip1", "speech-16k generated"]["gain_db"] == 0
    assert ("clip1", "low anchor") not in gains


@pytest.mark.parametrize("rate", [8000, 16000, 44100, 48000])
def test_low_anchor_ends_at_3500_hz(rate: int):
    impulse = torch.zeros(1, 2 * rate)
    impulse[0, rate] = 1.0
    gain = np.abs(np.fft.rfft(low_pass(impulse, rate)[0].numpy()))[::2]  # one bin per Hz
    assert np.abs(20 * np.log10(gain[:3501])).max() < 0.1
    assert 20 * np.log10(gain[4000:].max()) < -50


def test_anchor_is_the_low_passed_original(plain_page: str):
    anchor, rate = read_audio(sounds_of(plain_page)["audio-0-0-anchor"])
    spectrum = np.abs(np.fft.rfft(anchor[0, 1000:9000].numpy() * np.hanning(8000)))
    assert spectrum[int(EDGE / 2)] < 1e-3 * spectrum[150] and rate == RATE


def picture_of(uri: str) -> np.ndarray:
    """Pixels [height, width, 4] of a data URI, the top first."""
    return matplotlib.image.imread(io.BytesIO(base64.b64decode(uri.split(",")[1])))


def row_of(hertz: float, top_hz: float) -> float:
    """Distance of a frequency from the top of a picture, in pixels."""
    mel = np.log1p(np.array([hertz, top_hz]) / 700)
    return 96 * (1 - mel[0] / mel[1])


def test_spectrograms_share_their_scales():
    waves = [(tone(2000, 1.0).numpy()[0], RATE), (tone(2000, 0.5, 0.002).numpy()[0], RATE)]
    waves.append((tone(2000, 1.0, rate=8000).numpy()[0], 8000))
    pictures = [picture_of(uri) for uri in spectrograms(waves, 8000)]
    assert all(p.shape == (96, 320, 4) for p in pictures)
    full, faint, narrow = (p[..., :3].sum(-1) for p in pictures)
    row = round(row_of(2000, 8000))
    assert full[row - 1 : row + 2].max() > 2.5
    assert 0.3 < faint[row - 1 : row + 2, :150].max() < 1.8  # 40 dB lower
    assert np.argmax(narrow.mean(1)) == pytest.approx(row, abs=1)
    audible = [p[..., 3] for p in pictures]
    assert audible[0].all()
    assert not audible[1][:, 170:].any() and audible[1][:, :150].all()  # half as long
    edge = round(row_of(4000, 8000))
    assert not audible[2][: edge - 1].any() and audible[2][edge + 1 :].all()


def test_spectrograms_of_mixed_rates_share_the_axis_of_the_page(tmp_path: Path):
    """The same tone at 8, 16 and 44.1 kHz, in two runs, is at the same height."""
    rates = (8000, 16000, 44100)
    runs = [make_run(tmp_path / name, n_clips=1) for name in "ab"]
    for run, of_run in zip(runs, (rates[:2], rates[2:]), strict=True):
        for kind, rate in zip(("original", "resynthesis"), of_run, strict=False):
            write_audio(run / f"samples/000.{kind}.wav", tone(3000, 1.0, rate=rate), rate)
        for kind in ("resynthesis", "generated")[len(of_run) - 1 :]:
            (run / f"samples/000.{kind}.wav").unlink()
    page = page_of(*runs)
    pictures = [picture_of(uri) for uri in re.findall(r'<img src="([^"]*)"', page)]
    assert len(pictures) == 3
    rows = [np.argmax(p[..., :3].sum(-1).mean(1)) for p in pictures]
    assert rows == pytest.approx([row_of(3000, 22050)] * 3, abs=1.5)
    tops = [np.argmax(p[..., 3].any(1)) for p in pictures]
    assert tops == pytest.approx([row_of(rate / 2, 22050) for rate in rates], abs=1.5)
    assert "mel scale, up to 22.05 kHz" in page
    ticks = dict(
        re.findall(r'class="tick" style="top: ([\d.]+)%" aria-hidden="true">(\d+) kHz', page)
    )
    assert {int(khz): 0.96 * float(top) for top, khz in ticks.items()} == pytest.approx(
        {khz: row_of(1000 * khz, 22050) for khz in (1, 2, 4, 8, 16)}, abs=0.1
    )


def test_the_axis_ends_at_24_khz_and_ignores_unreadable_audio(tmp_path: Path):
    run = make_run(tmp_path / "r", n_clips=1)
    write_audio(run / "samples/000.original.wav", tone(3000, 0.5, rate=96000), 96000)
    (run / "samples/000.generated.wav").write_bytes(b"RIFF")
    assert top_frequency(read_run(run).listenings) == 24000
    assert top_frequency([]) == 24000
