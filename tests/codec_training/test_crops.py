"""Random crops of corpora."""

from __future__ import annotations

import pytest
import torch

from tokgen.audio.files import write_audio
from tokgen.codec_training.crops import AudioCrops, to_int16
from tokgen.codec_training.settings import SharedSettings
from tokgen.corpus.listed import open_corpus


def test_crops_repeat_by_seed_and_step(tiny_corpus, tmp_path):
    crops = AudioCrops([open_corpus(tiny_corpus, split="train")], 16000, tmp_path)
    a = crops.batch(5, seed=1, batch_size=3, n_samples=800)
    assert a.shape == (3, 1, 800) and a.abs().max() <= 1
    again = AudioCrops([open_corpus(tiny_corpus, split="train")], 16000, tmp_path)
    assert again.batch(5, seed=1, batch_size=3, n_samples=800).equal(a)
    assert not again.batch(6, seed=1, batch_size=3, n_samples=800).equal(a)
    with pytest.raises(ValueError, match="shorten the crops"):
        crops.batch(0, seed=0, batch_size=1, n_samples=10**9)


def test_a_failure_leaves_no_partial_file(tmp_path):
    (tmp_path / "corpus").mkdir()
    (tmp_path / "corpus" / "a.wav").write_bytes(b"no audio")
    with pytest.raises(ValueError, match="no readable audio"):
        AudioCrops([open_corpus(tmp_path / "corpus")], 16000, tmp_path / "cache")
    assert not list((tmp_path / "cache").iterdir())


def test_sixteen_bits_clip_and_round():
    assert to_int16(torch.tensor([-2.0, -1.0, 0.0, 0.5, 2.0])).tolist() == [
        -32768, -32768, 0, 16384, 32767,
    ]  # fmt: skip


def test_speed_moves_all_frequencies(tmp_path):
    tone = 0.5 * torch.sin(2 * torch.pi * 1000 * torch.arange(32000) / 16000)[None]
    (tmp_path / "corpus").mkdir()
    write_audio(tmp_path / "corpus" / "tone.wav", tone, 16000)
    crops = AudioCrops([open_corpus(tmp_path / "corpus")], 16000, tmp_path / "cache")
    size = {"seed": 1, "batch_size": 16, "n_samples": 8000}
    batch = crops.batch(5, speed=0.2, **size)
    assert batch.shape == (16, 1, 8000) and crops.batch(5, speed=0.2, **size).equal(batch)
    hertz = torch.fft.rfft(batch[:, 0] * torch.hann_window(8000)).abs().argmax(-1) * 2.0
    assert 800 <= hertz.min() < 900 and 1100 < hertz.max() <= 1200
    still = torch.fft.rfft(crops.batch(5, **size)[:, 0] * torch.hann_window(8000)).abs()
    assert (still.argmax(-1) * 2 == 1000).all()


def test_speed_has_a_limit():
    with pytest.raises(ValueError, match=r"speed is 0\.6, but must be at most 0\.5"):
        SharedSettings(speed=0.6)


def test_crops_keep_the_channels_of_the_codec(tmp_path):
    ramp = torch.linspace(-0.5, 0.5, 16000)
    write_audio(tmp_path / "in/a.wav", torch.stack([ramp, -0.5 * ramp]), 16000)
    write_audio(tmp_path / "in/b.wav", ramp, 16000)
    write_audio(tmp_path / "in/c.wav", ramp.expand(3, -1), 16000)
    corpus = open_corpus(tmp_path / "in")
    stereo = AudioCrops([corpus], 16000, tmp_path / "cache", channels=2)
    assert stereo.seconds == 2 and "has 3 channels" in stereo.rejections[0].reason
    size = {"seed": 0, "batch_size": 40, "n_samples": 100}
    batch = stereo.batch(0, **size)
    assert batch.shape == (40, 2, 100)
    left, right = batch[:, 0], batch[:, 1]
    opposite, equal = (left + 2 * right).abs().amax(1) < 1e-3, (left == right).all(1)
    assert opposite.sum() > 10 and equal.sum() > 10 and (opposite | equal).sum() >= 38
    assert stereo.batch(0, speed=0.2, **size).shape == (40, 2, 100)
    mono = AudioCrops([corpus], 16000, tmp_path / "cache")
    assert mono.seconds == 3 and mono.fingerprint != stereo.fingerprint
    assert mono.batch(0, **size).shape == (40, 1, 100)
