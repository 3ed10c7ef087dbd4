"""Tests of audio formats."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from makers.pages import page_of, sounds_of, text_of
from tokgen.audio.files import read_audio
from tokgen.report.clips import low_pass
from tokgen.report.encoding import AudioFormat


@pytest.mark.parametrize(("rate", "n"), [(16000, 20_001), (44100, 33_333), (48000, 500)])
def test_opus_keeps_length_and_alignment(rate: int, n: int):
    noise = torch.randn(1, n, generator=torch.Generator().manual_seed(1)) * 0.1
    wave = low_pass(noise, rate)
    again, opus_rate = read_audio(AudioFormat("opus", 64).encode(wave, rate), name="x.opus")
    assert opus_rate == 48_000 and again.shape[-1] == -(-n * 48_000 // rate)
    back, _ = read_audio(AudioFormat("opus", 64).encode(wave, rate), sample_rate=rate, name="x.ogg")
    size = min(back.shape[-1], n)
    a, b = (np.fft.rfft(w[0, :size].numpy(), 2 * size) for w in (wave, back))
    assert np.argmax(np.fft.irfft(a.conj() * b)) == 0


def test_opus_makes_the_page_smaller(samples_run: Path, plain_page: str):
    opus = page_of(samples_run, audio="opus", opus_kbps=24)
    embedded = [sum(map(len, sounds_of(page).values())) for page in (plain_page, opus)]
    assert embedded[1] < embedded[0] / 5
    assert "Opus at 24 kbps" in text_of(opus) and "16-bit WAV" in text_of(plain_page)


def test_unknown_formats_are_refused():
    with pytest.raises(ValueError, match="audio 'mp3': must be one of wav, opus"):
        AudioFormat("mp3")
    with pytest.raises(ValueError, match="mono Opus supports 6 to 256 kbps"):
        AudioFormat("opus", 2)
