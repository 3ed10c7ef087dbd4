"""Audio is read, resampled and written, whole and block by block."""

from __future__ import annotations

import io
import math
import signal
import tracemalloc

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from makers.audio import audio_bytes, correlation, make_sine
from tokgen.audio import files
from tokgen.audio.decoders import BLOCK_VALUES
from tokgen.audio.files import (
    AudioError,
    AudioWriter,
    open_blocks,
    read_audio,
    read_duration,
    write_audio,
)
from tokgen.audio.resampling import resample


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("shape", [(-1,), (1, -1)])
def test_what_is_written_is_read(tmp_path, suffix, shape):
    samples = torch.from_numpy(make_sine())
    path = tmp_path / "new folder" / f"tön{suffix}"
    assert write_audio(path, samples.reshape(shape), 16000) == 0
    waveform, rate = read_audio(path)
    assert (waveform.shape, waveform.dtype, rate) == ((1, 16000), torch.float32, 16000)
    assert (waveform[0] - samples).abs().max() <= 1 / 32768
    assert read_duration(path) == 1.0
    assert torch.equal(read_audio(path.read_bytes())[0], waveform)


def test_six_channels_at_96_khz(tmp_path):
    left = make_sine(0.5, 96000)
    sf.write(tmp_path / "a.wav", np.stack([left, *[0 * left] * 5], 1), 96000, subtype="FLOAT")
    waveform, rate = read_audio(tmp_path / "a.wav")
    assert (waveform.shape, rate) == ((1, 48000), 96000)
    np.testing.assert_allclose(waveform[0].numpy(), left / 6, atol=1e-6)
    small, rate = read_audio(tmp_path / "a.wav", sample_rate=16000)
    assert (small.shape, rate) == ((1, 8000), 16000)
    assert correlation(small, make_sine(0.5)) > 0.999


@settings(max_examples=40, deadline=None)
@given(
    n=st.integers(1, 3000),
    rates=st.tuples(*[st.sampled_from([8000, 16000, 22050, 24000, 44100, 48000, 96000])] * 2),
)
def test_resampled_length(n, rates):
    out = resample(torch.ones(2, 1, n), *rates)
    assert out.shape == (2, 1, math.ceil(n * rates[1] / rates[0]))


def test_resampling_while_reading_equals_resampling_after(tmp_path):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 700_001).astype(np.float32)
    sf.write(tmp_path / "a.wav", noise, 44100, subtype="FLOAT")
    streamed, _ = read_audio(tmp_path / "a.wav", sample_rate=16000)
    whole = resample(read_audio(tmp_path / "a.wav")[0], 44100, 16000)
    assert torch.equal(streamed, whole)
    assert resample(whole, 16000, 16000).equal(whole)


def test_resampling_refuses_absurd_rates():
    with pytest.raises(ValueError, match="sample rate 1 Hz"):
        resample(torch.ones(1, 10), 1, 16000)


def test_two_hours_are_refused_by_header_and_by_count(tmp_path):
    block = np.zeros(8000 * 60, np.int16)
    with sf.SoundFile(tmp_path / "long.flac", "w", 8000, 1) as file:
        for _ in range(120):
            file.write(block)
    assert read_duration(tmp_path / "long.flac") == 7200
    with pytest.raises(AudioError, match=r"7200.0 s long: the limit is 3600 s \(max_seconds\)"):
        read_audio(tmp_path / "long.flac", max_seconds=3600)
    (tmp_path / "long.g722").write_bytes(bytes(8000 * 7200))  # no header: unknown length
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match="longer: the limit is 60 s"):
            read_audio(tmp_path / "long.g722", max_seconds=60)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30e6  # two hours would be 460 MB


def test_overshoot_of_lossy_codecs_is_clamped(tmp_path):
    sf.write(tmp_path / "a.wav", make_sine() * 4, 16000, subtype="FLOAT")
    assert read_audio(tmp_path / "a.wav")[0].abs().max() == 1


def test_clipping_is_counted(tmp_path):
    loud = torch.tensor([0.0, 1.5, -2.0, 1.0])
    assert write_audio(tmp_path / "a.wav", loud, 16000) == 2
    assert read_audio(tmp_path / "a.wav")[0].abs().max() == pytest.approx(1, abs=1e-4)
    assert write_audio(tmp_path / "b.wav", loud, 16000, "FLOAT") == 0
    assert sf.read(tmp_path / "b.wav")[0].tolist() == loud.tolist()


@pytest.mark.parametrize(
    ("name", "waveform", "subtype", "match"),
    [
        ("a.aiff", torch.zeros(4), "PCM_16", r"suffix .*use one of .wav, .flac, .mp3"),
        ("a.flac", torch.zeros(4), "FLOAT", "not available for FLAC"),
        ("a.wav", torch.zeros(1, 1, 4), "PCM_16", r"shape \[1, 1, 4\]"),
        ("a.wav", torch.zeros(100, 2), "PCM_16", r"shape \[100, 2\]: must be .* C <= 64 for wav"),
        ("a.opus", torch.zeros(3, 4), None, r"shape \[3, 4\]: must be .* C <= 2 for opus"),
        ("a.wav", torch.zeros(0), "PCM_16", r"shape \[0\]"),
        ("a.wav", torch.tensor([math.nan]), "PCM_16", "NaN"),
    ],
)
def test_unusable_audio_is_not_written(tmp_path, name, waveform, subtype, match):
    with pytest.raises(ValueError, match=match):
        write_audio(tmp_path / name, waveform, 16000, subtype)
    assert not (tmp_path / name).exists()


@pytest.mark.parametrize("rate", [None, 16000, 96000])
@pytest.mark.parametrize(("file_format", "channels"), [("WAV", 1), ("FLAC", 2), ("MP3", 2)])
def test_blocks_equal_the_waveform(tmp_path, file_format, channels, rate):
    left = make_sine(20, 44100)
    sf.write(tmp_path / "a", np.stack([left, -0.5 * left][:channels], 1), 44100, format=file_format)
    waveform, found = read_audio(tmp_path / "a", sample_rate=rate)
    with open_blocks(tmp_path / "a", sample_rate=rate) as blocks:
        assert blocks.sample_rate == found == (rate or 44100)
        assert blocks.seconds == pytest.approx(20, abs=0.1)
        parts = list(blocks)
        assert blocks.n_samples == waveform.shape[-1]
    assert torch.equal(torch.cat(parts, dim=-1), waveform)
    limit = BLOCK_VALUES // channels * found / 44100
    assert len(parts) > 2 and max(part.shape[-1] for part in parts) < limit + 5000
    assert all(part.dtype == torch.float32 and part.shape[0] == 1 for part in parts)


def test_errors_are_raised_when_their_block_is_read(tmp_path):
    late = np.where(np.arange(600_000) == 599_999, np.nan, 0.1)
    with open_blocks(audio_bytes(late, "FLOAT"), name="a.wav") as blocks:
        got = iter(blocks)
        assert next(got).shape[-1] == BLOCK_VALUES
        with pytest.raises(AudioError, match=r"cannot read a\.wav: holds NaN"):
            list(got)
    with (
        pytest.raises(AudioError, match=r"37\.5 s long: the limit is 30 s"),
        open_blocks(audio_bytes(late, "FLOAT"), max_seconds=30),
    ):
        pass


def test_an_interrupt_is_raised_between_blocks(tmp_path):
    """An interrupt while a block is decoded waits for the end of that block."""
    (tmp_path / "a.wav").write_bytes(audio_bytes(np.zeros(900_000, np.float32)))

    class Interrupting(io.FileIO):
        def readinto(self, buffer):
            if self.tell() > 100_000:
                signal.raise_signal(signal.SIGINT)
            return super().readinto(buffer)

    n_blocks = 0
    with (
        pytest.raises(KeyboardInterrupt),
        Interrupting(tmp_path / "a.wav") as file,
        open_blocks(file) as blocks,
    ):
        for _ in blocks:
            n_blocks += 1
    assert n_blocks < 2


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
def test_written_in_blocks_or_at_once(tmp_path, suffix):
    samples = 1.2 * torch.from_numpy(np.sin(np.arange(70_000) / 30)).float()
    clipped = write_audio(tmp_path / f"whole{suffix}", samples, 16000)
    with AudioWriter(tmp_path / "new" / f"blocks{suffix}", 16000) as writer:
        for block in samples.split(999):
            writer.write(block[None])
    assert (writer.n_samples, writer.clipped) == (70_000, clipped) and clipped > 0
    assert torch.equal(*(read_audio(p)[0] for p in tmp_path.rglob(f"*{suffix}")))


def test_a_failed_write_leaves_no_file(tmp_path):
    with pytest.raises(RuntimeError), AudioWriter(tmp_path / "a.wav", 16000) as writer:
        writer.write(torch.zeros(10))
        raise RuntimeError
    with pytest.raises(ValueError, match="NaN"), AudioWriter(tmp_path / "b.wav", 16000) as writer:
        writer.write(torch.zeros(10))
        writer.write(torch.full((10,), math.nan))
    with pytest.raises(ValueError, match="nothing was written"), AudioWriter(tmp_path / "c.wav", 1):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_wav_that_is_too_large_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_WAV_BYTES", 2000)
    with pytest.raises(ValueError, match=r"2002 bytes of samples are more .* write \.flac"):
        write_audio(tmp_path / "a.wav", torch.zeros(1001), 16000)
    write_audio(tmp_path / "a.flac", torch.zeros(1001), 16000)


@pytest.mark.parametrize("shape", [(-1,), (1, -1)])
def test_a_numpy_array_is_written(shape, tmp_path) -> None:
    files.write_audio(tmp_path / "a.wav", np.linspace(-0.5, 0.5, 100).reshape(shape), 16000)
    assert sf.read(tmp_path / "a.wav")[0].shape == (100,)
