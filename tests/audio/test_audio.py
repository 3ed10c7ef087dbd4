from __future__ import annotations

import copy
import io
import math
import signal
import sys
import tracemalloc
from pathlib import Path
from typing import cast

import av
import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tokgen.audio import decoders as audio_decoders
from tokgen.audio import files as audio
from tokgen.audio.files import (
    AudioError,
    AudioWriter,
    open_blocks,
    read_audio,
    read_duration,
    resample,
    write_audio,
)


def tone(seconds: float = 1.0, rate: int = 16000, hertz: float = 440.0) -> np.ndarray:
    time = np.arange(round(seconds * rate)) / rate
    fade = np.minimum(1, np.minimum(time, time[::-1]) * 50)
    return (0.3 * fade * np.sin(2 * np.pi * hertz * time)).astype(np.float32)


def encode(path: Path, samples: np.ndarray, rate: int, codec: str, options: dict | None = None):
    """Write audio with FFmpeg."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = cast(av.AudioStream, container.add_stream(codec, rate=rate, layout="mono"))
        encoder = stream.codec_context
        encoder.open()
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        fit = av.AudioResampler(encoder.format, "mono", rate, encoder.frame_size or None)
        for part in [*fit.resample(frame), *fit.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


def correlation(a: torch.Tensor, b: np.ndarray) -> float:
    n = min(a.shape[-1], len(b))
    return float(np.corrcoef(a[0, :n].numpy(), b[:n])[0, 1])


@pytest.mark.parametrize("suffix", [".wav", ".flac"])
@pytest.mark.parametrize("shape", [(-1,), (1, -1)])
def test_what_is_written_is_read(tmp_path, suffix, shape):
    samples = torch.from_numpy(tone())
    path = tmp_path / "new folder" / f"tön{suffix}"
    assert write_audio(path, samples.reshape(shape), 16000) == 0
    waveform, rate = read_audio(path)
    assert (waveform.shape, waveform.dtype, rate) == ((1, 16000), torch.float32, 16000)
    assert (waveform[0] - samples).abs().max() <= 1 / 32768
    assert read_duration(path) == 1.0
    assert torch.equal(read_audio(path.read_bytes())[0], waveform)


@pytest.mark.parametrize(
    ("name", "rate", "codec"),
    [
        ("a.m4a", 16000, "aac"),
        ("a.m4a", 44100, "aac"),
        ("a.mp3", 24000, "libmp3lame"),
        ("a.opus", 48000, "libopus"),
        ("a.webm", 48000, "libopus"),
        ("a.g722", 16000, "g722"),
    ],
)
def test_lossy_formats(tmp_path, name, rate, codec):
    path = tmp_path / name
    samples = tone(2, rate)
    encode(path, samples, rate, codec)
    for source in (path, path.read_bytes()):
        waveform, found = read_audio(source, name=name)
        assert found == rate
        assert abs(waveform.shape[-1] - 2 * rate) <= 0.025 * rate
        delay = 22 if codec == "g722" else 0  # of its filter bank
        assert correlation(waveform[:, delay:], samples) > 0.98
    duration = read_duration(path)
    assert duration == pytest.approx(2, abs=0.03)
    assert read_audio(path, sample_rate=16000)[1] == 16000


def test_m4a_without_the_padding_of_its_last_frame(tmp_path):
    encode(tmp_path / "a.m4a", tone(1.23456), 16000, "aac")
    n_samples = read_audio(tmp_path / "a.m4a")[0].shape[-1]
    assert 0 <= n_samples - len(tone(1.23456)) < 16  # the container counts milliseconds


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "MP3", "OGG", "AIFF"])
def test_content_decides_not_the_suffix(tmp_path, file_format):
    path = tmp_path / "clip with spaces ñ 音.wav"
    with path.open("wb") as file:
        sf.write(file, tone(), 16000, format=file_format)
    assert read_audio(path)[0].shape == (1, 16000)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "ULAW", "FLOAT", "DOUBLE"])
def test_sample_types(tmp_path, subtype):
    sf.write(tmp_path / "a.wav", tone(), 16000, subtype=subtype)
    waveform, _ = read_audio(tmp_path / "a.wav")
    assert np.abs(waveform[0].numpy() - tone()).max() < 0.01


def test_six_channels_at_96_khz(tmp_path):
    left = tone(0.5, 96000)
    sf.write(tmp_path / "a.wav", np.stack([left, *[0 * left] * 5], 1), 96000, subtype="FLOAT")
    waveform, rate = read_audio(tmp_path / "a.wav")
    assert (waveform.shape, rate) == ((1, 48000), 96000)
    np.testing.assert_allclose(waveform[0].numpy(), left / 6, atol=1e-6)
    small, rate = read_audio(tmp_path / "a.wav", sample_rate=16000)
    assert (small.shape, rate) == ((1, 8000), 16000)
    assert correlation(small, tone(0.5)) > 0.999


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


def wav(samples: np.ndarray, subtype: str = "PCM_16", file_format: str = "WAV", rate=16000):
    file = io.BytesIO()
    sf.write(file, samples, rate, subtype=subtype, format=file_format)
    return file.getvalue()


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def hostile_rate(data: bytes) -> bytes:
    return data[:24] + (1).to_bytes(4, "little") + data[28:]


BAD = {
    "empty": (b"", "empty file"),
    "text": (b"this is no audio at all\n" * 100, "not audio"),
    "noise": (np.random.default_rng(0).bytes(5000), "not audio"),
    "header only": (wav(tone())[:44], "truncated|no samples"),
    "zero length": (wav(tone()[:0]), "holds no samples"),
    "half wav": (
        half(wav(tone())),
        r"truncated: the header promises 1.00 s, the file holds 0.50 s",
    ),
    "half flac": (half(wav(tone(), file_format="FLAC")), "truncated"),
    "half aiff": (half(wav(tone(), file_format="AIFF")), "truncated"),
    "half ogg": (half(wav(tone(4), "VORBIS", "OGG")), "truncated|not audio"),
    "half opus": (half(wav(tone(4), "OPUS", "OGG")), "truncated|not audio"),
    "nan": (wav(np.where(np.arange(16000) == 15999, np.nan, tone()), "FLOAT"), "NaN or infinite"),
    "inf": (wav(np.where(np.arange(16000) == 3, -np.inf, tone()), "FLOAT"), "NaN or infinite"),
    "integers in floats": (wav(tone() * 32768, "FLOAT"), "rescale"),
    "rate of 1 Hz": (hostile_rate(wav(tone())), "sample rate 1 Hz"),
}


@pytest.mark.parametrize("case", BAD)
@pytest.mark.parametrize("as_file", [True, False])
def test_bad_audio_is_named_with_its_reason(tmp_path, case, as_file):
    data, reason = BAD[case]
    source: Path | bytes = data
    if as_file:
        source = tmp_path / "some file.wav"
        source.write_bytes(data)
    with pytest.raises(AudioError, match=reason) as caught:
        read_audio(source, sample_rate=16000, name=None if as_file else "row 7.wav")
    assert caught.value.source == (str(source) if as_file else "row 7.wav")
    assert str(caught.value) == f"cannot read {caught.value.source}: {caught.value.reason}"


@settings(max_examples=60, deadline=None)
@given(
    file_format=st.sampled_from(["WAV", "FLAC", "OGG", "AIFF"]),
    spots=st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4),
    cut=st.integers(1, 10**6),
)
def test_damage_of_any_kind_is_an_audio_error(file_format, spots, cut):
    data = bytearray(wav(tone(0.2), "VORBIS" if file_format == "OGG" else "PCM_16", file_format))
    for position, value in spots:
        data[position % len(data)] = value
    try:
        waveform, rate = read_audio(bytes(data[:cut]), max_seconds=10)
    except AudioError:
        return
    assert waveform.isfinite().all() and 1 <= waveform.shape[-1] <= 10 * rate


@pytest.mark.parametrize("value", [18, 48, 208])
def test_a_damaged_header_prints_no_stack_trace(monkeypatch, value):
    printed: list[BaseException | None] = []
    monkeypatch.setattr(sys, "unraisablehook", lambda args: printed.append(args.exc_value))
    data = bytearray(wav(tone(3), file_format="AIFF"))
    data[40] = value  # of the chunk sizes: sends libsndfile before the start of the file
    with pytest.raises(AudioError):
        read_audio(bytes(data))
    assert printed == []


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}])
def test_truncated_m4a(tmp_path, options):
    encode(tmp_path / "a.m4a", tone(3), 16000, "aac", options)
    with pytest.raises(AudioError, match=r"truncated|cut short"):
        read_audio(half((tmp_path / "a.m4a").read_bytes()), name="a.m4a")


def test_truncated_mp3(tmp_path):
    encode(tmp_path / "a.mp3", tone(3), 16000, "libmp3lame")
    with pytest.raises(AudioError, match="truncated"):
        read_audio(half((tmp_path / "a.mp3").read_bytes()))


def test_things_that_are_no_files(tmp_path):
    with pytest.raises(AudioError, match="no such file"):
        read_audio(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match="not a regular file"):
        read_audio(tmp_path)
    with pytest.raises(AudioError, match="no such file"):
        read_audio("nul\0byte.wav")
    with pytest.raises(AudioError, match="no header"):
        read_audio(b"\0" * 100, name="a.raw")
    assert read_duration(tmp_path / "gone.wav") is None


def test_a_playlist_opens_no_other_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_audio("secret.wav", torch.from_numpy(tone()), 16000)
    for text in (
        "ffconcat version 1.0\nfile secret.wav\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.wav\n#EXT-X-ENDLIST\n",
    ):
        Path("list.wav").write_text(text)
        with pytest.raises(AudioError, match="not audio"):
            read_audio("list.wav")


def test_two_hours_are_refused_by_header_and_by_count(tmp_path):
    block = np.zeros(8000 * 60, np.int16)
    with sf.SoundFile(tmp_path / "long.flac", "w", 8000, 1) as file:
        for _ in range(120):
            file.write(block)
    assert read_duration(tmp_path / "long.flac") == 7200
    with pytest.raises(AudioError, match=r"7200.0 s long: the limit is 3600 s \(max_seconds\)"):
        read_audio(tmp_path / "long.flac", max_seconds=3600)
    (tmp_path / "long.g722").write_bytes(bytes(8000 * 7200))  # no header tells its length
    tracemalloc.start()
    try:
        with pytest.raises(AudioError, match="longer: the limit is 60 s"):
            read_audio(tmp_path / "long.g722", max_seconds=60)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 30e6  # two hours would be 460 MB


def test_overshoot_of_lossy_codecs_is_clamped(tmp_path):
    sf.write(tmp_path / "a.wav", tone() * 4, 16000, subtype="FLOAT")
    assert read_audio(tmp_path / "a.wav")[0].abs().max() == 1


def test_a_wav_from_a_pipe_is_not_truncated():
    data = bytearray(wav(tone()))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert read_audio(bytes(data))[0].shape == (1, 16000)


def test_clipping_is_counted(tmp_path):
    loud = torch.tensor([0.0, 1.5, -2.0, 1.0])
    assert write_audio(tmp_path / "a.wav", loud, 16000) == 2
    assert read_audio(tmp_path / "a.wav")[0].abs().max() == pytest.approx(1, abs=1e-4)
    assert write_audio(tmp_path / "b.wav", loud, 16000, "FLOAT") == 0
    assert sf.read(tmp_path / "b.wav")[0].tolist() == loud.tolist()


@pytest.mark.parametrize(
    ("name", "waveform", "subtype", "match"),
    [
        ("a.mp3", torch.zeros(4), "PCM_16", "not .wav or .flac"),
        ("a.flac", torch.zeros(4), "FLOAT", "not available for FLAC"),
        ("a.wav", torch.zeros(2, 4), "PCM_16", r"shape \[2, 4\]"),
        ("a.wav", torch.zeros(0), "PCM_16", r"shape \[0\]"),
        ("a.wav", torch.tensor([math.nan]), "PCM_16", "NaN"),
    ],
)
def test_what_cannot_be_written(tmp_path, name, waveform, subtype, match):
    with pytest.raises(ValueError, match=match):
        write_audio(tmp_path / name, waveform, 16000, subtype)
    assert not (tmp_path / name).exists()


# -- block by block ------------------------------------------------------------


@pytest.mark.parametrize("rate", [None, 16000, 96000])
@pytest.mark.parametrize(("file_format", "channels"), [("WAV", 1), ("FLAC", 2), ("MP3", 2)])
def test_blocks_are_the_waveform(tmp_path, file_format, channels, rate):
    left = tone(20, 44100)
    sf.write(tmp_path / "a", np.stack([left, -0.5 * left][:channels], 1), 44100, format=file_format)
    waveform, found = read_audio(tmp_path / "a", sample_rate=rate)
    with open_blocks(tmp_path / "a", sample_rate=rate) as blocks:
        assert blocks.sample_rate == found == (rate or 44100)
        assert blocks.seconds == pytest.approx(20, abs=0.1)
        parts = list(blocks)
        assert blocks.n_samples == waveform.shape[-1]
    assert torch.equal(torch.cat(parts, dim=-1), waveform)
    limit = audio_decoders.BLOCK_VALUES // channels * found / 44100
    assert len(parts) > 2 and max(part.shape[-1] for part in parts) < limit + 5000
    assert all(part.dtype == torch.float32 and part.shape[0] == 1 for part in parts)


def test_blocks_of_an_open_file_that_stays_open(tmp_path):
    write_audio(tmp_path / "a.wav", torch.from_numpy(tone()), 16000)
    encode(tmp_path / "b.m4a", tone(), 16000, "aac")
    for name in ("a.wav", "b.m4a"):
        with (tmp_path / name).open("rb") as file:
            assert torch.equal(read_audio(file)[0], read_audio(tmp_path / name)[0])
            assert not file.closed
            assert read_duration(file) == read_duration(tmp_path / name)
    with (
        (tmp_path / "a.wav").open("rb") as file,
        pytest.raises(AudioError, match=r"a\.wav: 1\.0 s"),
    ):
        read_audio(file, max_seconds=0.5)
    with pytest.raises(AudioError, match="empty file"):
        read_audio(io.BytesIO())


@pytest.mark.parametrize("file_format", ["WAV", "FLAC"])
def test_a_read_that_fails_is_not_taken_for_the_end(file_format):
    """A connection that is lost in the middle leaves no file that is said to be truncated."""

    class Lost(io.BytesIO):
        def readinto(self, buffer):
            if self.tell() > 500_000:
                raise ConnectionError("lost")
            return super().readinto(buffer)

    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 600_000).astype(np.float32)
    with pytest.raises(ConnectionError, match="lost"):
        read_audio(Lost(wav(noise, file_format=file_format)))


def test_errors_come_when_they_are_met(tmp_path):
    late = np.where(np.arange(600_000) == 599_999, np.nan, 0.1)
    with open_blocks(wav(late, "FLOAT"), name="a.wav") as blocks:
        got = iter(blocks)
        assert next(got).shape[-1] == audio_decoders.BLOCK_VALUES
        with pytest.raises(AudioError, match=r"cannot read a\.wav: holds NaN"):
            list(got)
    with (
        pytest.raises(AudioError, match=r"37\.5 s long: the limit is 30 s"),
        open_blocks(wav(late, "FLOAT"), max_seconds=30),
    ):
        pass


def test_an_interrupt_gets_through_between_blocks(tmp_path):
    """One that comes while a block is decoded waits for its end, and no longer."""
    (tmp_path / "a.wav").write_bytes(wav(np.zeros(900_000, np.float32)))

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


def test_a_file_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(RuntimeError), AudioWriter(tmp_path / "a.wav", 16000) as writer:
        writer.write(torch.zeros(10))
        raise RuntimeError
    with pytest.raises(ValueError, match="NaN"), AudioWriter(tmp_path / "b.wav", 16000) as writer:
        writer.write(torch.zeros(10))
        writer.write(torch.full((10,), math.nan))
    with pytest.raises(ValueError, match="nothing was written"), AudioWriter(tmp_path / "c.wav", 1):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_wav_that_would_not_count_its_samples_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(audio, "MAX_WAV_BYTES", 2000)
    with pytest.raises(ValueError, match=r"2002 bytes of samples are more .* write \.flac"):
        write_audio(tmp_path / "a.wav", torch.zeros(1001), 16000)
    write_audio(tmp_path / "a.flac", torch.zeros(1001), 16000)


def test_errors_travel_between_processes():
    error = copy.copy(AudioError("a.wav", "too blue"))
    assert (error.source, error.reason) == ("a.wav", "too blue")
    assert str(error) == "cannot read a.wav: too blue"
