"""Audio files of every format are decoded, and damaged ones are named with a reason."""

from __future__ import annotations

import copy
import io
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile as sf
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from makers.audio import audio_bytes, correlation, make_sine, write_with_ffmpeg
from tokgen.audio.files import AudioError, read_audio, read_duration, write_audio


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
    samples = make_sine(2, rate)
    write_with_ffmpeg(path, samples, rate, codec)
    for source in (path, path.read_bytes()):
        waveform, found = read_audio(source, name=name)
        assert found == rate
        assert abs(waveform.shape[-1] - 2 * rate) <= 0.025 * rate
        delay = 22 if codec == "g722" else 0  # delay of its filter bank
        assert correlation(waveform[:, delay:], samples) > 0.98
    duration = read_duration(path)
    assert duration == pytest.approx(2, abs=0.03)
    assert read_audio(path, sample_rate=16000)[1] == 16000


def test_m4a_drops_the_padding_of_its_last_frame(tmp_path):
    write_with_ffmpeg(tmp_path / "a.m4a", make_sine(1.23456), 16000, "aac")
    n_samples = read_audio(tmp_path / "a.m4a")[0].shape[-1]
    assert 0 <= n_samples - len(make_sine(1.23456)) < 16  # the container counts milliseconds


@pytest.mark.parametrize("file_format", ["WAV", "FLAC", "MP3", "OGG", "AIFF"])
def test_the_format_is_found_by_content(tmp_path, file_format):
    path = tmp_path / "clip with spaces ñ 音.wav"
    with path.open("wb") as file:
        sf.write(file, make_sine(), 16000, format=file_format)
    assert read_audio(path)[0].shape == (1, 16000)


@pytest.mark.parametrize("subtype", ["PCM_U8", "PCM_24", "ULAW", "FLOAT", "DOUBLE"])
def test_sample_types(tmp_path, subtype):
    sf.write(tmp_path / "a.wav", make_sine(), 16000, subtype=subtype)
    waveform, _ = read_audio(tmp_path / "a.wav")
    assert np.abs(waveform[0].numpy() - make_sine()).max() < 0.01


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def hostile_rate(data: bytes) -> bytes:
    return data[:24] + (1).to_bytes(4, "little") + data[28:]


def replaced(index: int, value: float) -> np.ndarray:
    return np.where(np.arange(16000) == index, value, make_sine())


BAD = {
    "empty": (b"", "empty file"),
    "text": (b"this is no audio at all\n" * 100, "not audio"),
    "noise": (np.random.default_rng(0).bytes(5000), "not audio"),
    "header only": (audio_bytes(make_sine())[:44], "truncated|no samples"),
    "zero length": (audio_bytes(make_sine()[:0]), "holds no samples"),
    "half wav": (
        half(audio_bytes(make_sine())),
        r"truncated: the header promises 1.00 s, the file holds 0.50 s",
    ),
    "half flac": (half(audio_bytes(make_sine(), file_format="FLAC")), "truncated"),
    "half aiff": (half(audio_bytes(make_sine(), file_format="AIFF")), "truncated"),
    "half ogg": (half(audio_bytes(make_sine(4), "VORBIS", "OGG")), "truncated|not audio"),
    "half opus": (half(audio_bytes(make_sine(4), "OPUS", "OGG")), "truncated|not audio"),
    "nan": (audio_bytes(replaced(15999, np.nan), "FLOAT"), "NaN or infinite"),
    "inf": (audio_bytes(replaced(3, -np.inf), "FLOAT"), "NaN or infinite"),
    "integers in floats": (audio_bytes(make_sine() * 32768, "FLOAT"), "rescale"),
    "rate of 1 Hz": (hostile_rate(audio_bytes(make_sine())), "sample rate 1 Hz"),
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
    subtype = "VORBIS" if file_format == "OGG" else "PCM_16"
    data = bytearray(audio_bytes(make_sine(0.2), subtype, file_format))
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
    data = bytearray(audio_bytes(make_sine(3), file_format="AIFF"))
    data[40] = value  # a chunk size that sends libsndfile before the start of the file
    with pytest.raises(AudioError):
        read_audio(bytes(data))
    assert printed == []


@pytest.mark.parametrize("options", [{}, {"movflags": "faststart"}])
def test_truncated_m4a(tmp_path, options):
    write_with_ffmpeg(tmp_path / "a.m4a", make_sine(3), 16000, "aac", options)
    with pytest.raises(AudioError, match=r"truncated|cut short"):
        read_audio(half((tmp_path / "a.m4a").read_bytes()), name="a.m4a")


def test_truncated_mp3(tmp_path):
    write_with_ffmpeg(tmp_path / "a.mp3", make_sine(3), 16000, "libmp3lame")
    with pytest.raises(AudioError, match="truncated"):
        read_audio(half((tmp_path / "a.mp3").read_bytes()))


def test_paths_that_are_not_files(tmp_path):
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
    write_audio("secret.wav", torch.from_numpy(make_sine()), 16000)
    for text in (
        "ffconcat version 1.0\nfile secret.wav\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.wav\n#EXT-X-ENDLIST\n",
    ):
        Path("list.wav").write_text(text)
        with pytest.raises(AudioError, match="not audio"):
            read_audio("list.wav")


def test_a_wav_from_a_pipe_is_not_truncated():
    data = bytearray(audio_bytes(make_sine()))
    data[4:8] = data[40:44] = b"\xff\xff\xff\xff"
    assert read_audio(bytes(data))[0].shape == (1, 16000)


def test_an_open_file_is_read_and_stays_open(tmp_path):
    write_audio(tmp_path / "a.wav", torch.from_numpy(make_sine()), 16000)
    write_with_ffmpeg(tmp_path / "b.m4a", make_sine(), 16000, "aac")
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
def test_a_failed_read_is_not_the_end_of_the_file(file_format):
    """A lost connection raises its own error, and the file does not count as truncated."""

    class Lost(io.BytesIO):
        def readinto(self, buffer):
            if self.tell() > 500_000:
                raise ConnectionError("lost")
            return super().readinto(buffer)

    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 600_000).astype(np.float32)
    with pytest.raises(ConnectionError, match="lost"):
        read_audio(Lost(audio_bytes(noise, file_format=file_format)))


def test_errors_travel_between_processes():
    error = copy.copy(AudioError("a.wav", "too blue"))
    assert (error.source, error.reason) == ("a.wav", "too blue")
    assert str(error) == "cannot read a.wav: too blue"
