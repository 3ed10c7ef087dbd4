"""Channels of audio: mixed, kept, refused, and written."""

from __future__ import annotations

import numpy as np
import pytest
import soundfile as sf
import torch

from makers.audio import correlation, make_sine, make_tone
from tokgen.audio.encoders import BITRATES
from tokgen.audio.files import AudioError, AudioWriter, open_blocks, read_audio, write_audio


@pytest.fixture(scope="module")
def stereo() -> torch.Tensor:
    return torch.cat([make_tone(3, 1, 44100), make_tone(3, 2, 44100)])


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_both_channels_are_written_and_read(tmp_path, stereo, suffix):
    with AudioWriter(tmp_path / f"a.{suffix}", 44100) as writer:
        for block in stereo.split(9_999, dim=-1):
            writer.write(block)
        assert writer.n_channels == 2
    kept, rate = read_audio(tmp_path / f"a.{suffix}", channels=2)
    assert (kept.shape, rate) == (stereo.shape, 44100)
    assert (kept - stereo).abs().max() <= 1 / 32768
    mixed, _ = read_audio(tmp_path / f"a.{suffix}")
    assert mixed.equal(kept.mean(0, keepdim=True))


@pytest.mark.parametrize("kind", BITRATES)
def test_lossy_formats_keep_the_channels_apart(tmp_path, kind):
    left, right = make_sine(4, 48000), make_sine(4, 48000)[::-1] * np.linspace(1, 0, 4 * 48000)
    write_audio(tmp_path / f"a.{kind}", np.stack([left, right]), 48000)
    found, rate = read_audio(tmp_path / f"a.{kind}", channels=2)
    assert found.shape[0] == 2 and rate == 48000
    assert correlation(found[:1], left) > 0.99 and correlation(found[1:], right) > 0.99
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, (2, 4 * 48000)).astype(np.float32)
    write_audio(tmp_path / f"b.{kind}", noise, 48000)
    kbps = 8 * (tmp_path / f"b.{kind}").stat().st_size / 4 / 1000
    assert kbps == pytest.approx(2 * BITRATES[kind], rel=0.2)


@pytest.mark.parametrize("rate", [None, 16000, 48000])
def test_blocks_equal_the_waveform_and_each_channel_is_resampled_alone(tmp_path, stereo, rate):
    sf.write(tmp_path / "a.wav", stereo.T.numpy(), 44100, subtype="FLOAT")
    for i, channel in enumerate(stereo):
        sf.write(tmp_path / f"{i}.wav", channel.numpy(), 44100, subtype="FLOAT")
    whole, found = read_audio(tmp_path / "a.wav", sample_rate=rate, channels=2)
    with open_blocks(tmp_path / "a.wav", sample_rate=rate, channels=2) as blocks:
        assert blocks.channels == 2
        assert torch.cat(list(blocks), -1).equal(whole)
        assert blocks.n_samples == whole.shape[-1]
    for i, channel in enumerate(whole):
        alone, _ = read_audio(tmp_path / f"{i}.wav", sample_rate=rate, channels=2)
        assert alone.shape[0] == 1 and alone[0].equal(channel), found


def test_more_channels_are_refused_or_mixed(tmp_path):
    sf.write(tmp_path / "a.wav", np.full((100, 6), 0.5), 16000)
    with pytest.raises(AudioError, match="has 6 channels, but must have 1 or 2: mix it"):
        read_audio(tmp_path / "a.wav", channels=2)
    assert read_audio(tmp_path / "a.wav")[0].shape == (1, 100)
    assert read_audio(tmp_path / "a.wav", channels=None)[0].shape == (6, 100)


def test_the_first_part_of_a_file_sets_its_channels(tmp_path):
    """Concatenated Ogg files may differ in their channels."""
    one, two = (np.full((8000, c), 0.25, np.float32) for c in (1, 2))
    for name, parts in (("mono", (one, two)), ("stereo", (two, one))):
        data = b""
        for part in parts:
            sf.write(tmp_path / "part.ogg", part, 16000, format="OGG")
            data += (tmp_path / "part.ogg").read_bytes()
        found, _ = read_audio(data, channels=2)
        assert found.shape == (1 + (name == "stereo"), 16000)


def test_a_file_keeps_to_one_number_of_channels(tmp_path):
    with (
        pytest.raises(ValueError, match=r"1 channels after 2 for .*a\.wav: keep to one"),
        AudioWriter(tmp_path / "a.wav", 16000) as writer,
    ):
        writer.write(torch.zeros(2, 10))
        writer.write(torch.zeros(10))
