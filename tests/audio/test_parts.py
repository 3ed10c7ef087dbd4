"""Joined files are read whole, at the rate of each part, and their duration is known before."""

from __future__ import annotations

import io

import pytest
import soundfile as sf
import torch

from makers.audio import correlation, make_sine, write_with_ffmpeg
from tokgen.audio import parts as parts_module
from tokgen.audio.files import AudioError, read_audio, read_duration
from tokgen.audio.parts import find_parts
from tokgen.audio.resampling import resample

NO_INFO = {"write_xing": "0", "id3v2_version": "0"}


def encoded(tmp_path, suffix: str, codec: str, seconds: float, rate: int, **options: str) -> bytes:
    path = tmp_path / f"part{suffix}"
    write_with_ffmpeg(path, make_sine(seconds, rate), rate, codec, options)
    return path.read_bytes()


def check_joined(*parts: bytes, name: str, slack: float = 0.0) -> None:
    """The whole is what its parts are, one after the other, each at its own rate."""
    whole, rate = read_audio(b"".join(parts), name=name)
    alone = [read_audio(part, name=name) for part in parts]
    expected = torch.cat([resample(found, r, alone[0][1]) for found, r in alone], dim=-1)
    assert rate == alone[0][1]
    assert whole.shape[-1] == pytest.approx(expected.shape[-1], abs=1)
    torch.testing.assert_close(whole[:, :-1], expected[:, : whole.shape[-1] - 1])
    seconds = read_duration(b"".join(parts), name=name)
    assert seconds == pytest.approx(whole.shape[-1] / rate, abs=slack + 2 / rate)


@pytest.mark.parametrize("second", ["VORBIS", "OPUS"])
@pytest.mark.parametrize("first", ["VORBIS", "OPUS"])
def test_chained_ogg_is_read_whole(first, second):
    def ogg(subtype: str, seconds: float, rate: int) -> bytes:
        file = io.BytesIO()
        sf.write(file, make_sine(seconds, rate), rate, subtype=subtype, format="OGG")
        return file.getvalue()

    one, two = ogg(first, 1.2, 24000), ogg(second, 0.7, 16000)
    check_joined(one, two, one, name="a.ogg")


def test_chained_flac_in_ogg_is_read_whole(tmp_path):
    one = encoded(tmp_path, ".oga", "flac", 0.5, 44100)
    check_joined(one, encoded(tmp_path, ".oga", "flac", 0.4, 16000), name="a.oga")


@pytest.mark.parametrize("rate", [44100, 16000])
@pytest.mark.parametrize("first", [{}, NO_INFO])
@pytest.mark.parametrize("second", [{}, NO_INFO])
def test_concatenated_mp3_is_read_whole(tmp_path, first, second, rate):
    one = encoded(tmp_path, ".mp3", "libmp3lame", 1.2, 44100, **first)
    two = encoded(tmp_path, ".mp3", "libmp3lame", 0.7, rate, **second)
    if first == second == NO_INFO and rate == 44100:  # nothing tells where the second starts
        waveform, _ = read_audio(one + two)
        seconds = sum(read_audio(part)[0].shape[-1] for part in (one, two)) / 44100
        assert waveform.shape[-1] / 44100 == pytest.approx(seconds, abs=1e-6)
        assert read_duration(one + two) == pytest.approx(seconds)
    else:
        check_joined(one, two, name="a.mp3")


def test_tags_between_mp3_files_are_no_audio(tmp_path):
    one = encoded(tmp_path, ".mp3", "libmp3lame", 0.6, 44100)
    tag = b"TAG" + bytes(125)
    check_joined(one + tag, one + tag, one, name="a.mp3")
    assert len(find_parts(io.BytesIO(one + tag), "a.mp3")) == 1


def test_an_mp3_without_info_has_the_duration_that_is_read(tmp_path):
    """An estimate was 0.2 % too long, and such a file was refused as truncated."""
    data = encoded(tmp_path, ".mp3", "libmp3lame", 60, 44100, **NO_INFO)
    waveform, rate = read_audio(data)
    assert read_duration(data) == waveform.shape[-1] / rate == pytest.approx(60, abs=0.06)


def test_aac_that_changes_its_rate_is_read_at_each_rate(tmp_path):
    one = encoded(tmp_path, ".aac", "aac", 1.2, 44100)
    two = encoded(tmp_path, ".aac", "aac", 0.7, 16000)
    waveform, rate = read_audio(one + two, name="a.aac")
    lengths = [read_audio(part, name="a.aac")[0].shape[-1] for part in (one, two)]
    seconds = lengths[0] / 44100 + lengths[1] / 16000
    assert rate == 44100
    assert waveform.shape[-1] / rate == pytest.approx(seconds, abs=1e-3)
    assert read_duration(one + two, name="a.aac") == pytest.approx(seconds, abs=1e-3)
    late = waveform[:, lengths[0] + 44100 // 16 :]
    delay = lengths[1] * 441 // 160 - late.shape[-1]
    expected = resample(torch.from_numpy(make_sine(0.7, 16000))[None], 16000, 44100)
    shifted = late[:, max(0, 1024 * 441 // 160 - delay) :]
    assert correlation(shifted, expected[0].numpy()) > 0.9  # 440 Hz, not 1213 Hz


def test_too_many_parts_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(parts_module, "MOST_PARTS", 3)
    one = encoded(tmp_path, ".opus", "libopus", 0.1, 48000)
    assert read_audio(3 * one)[0].shape[-1] == 3 * 4800
    with pytest.raises(AudioError, match="joined from more than 3 files"):
        read_audio(4 * one)


def test_the_longest_audio_counts_all_parts(tmp_path):
    one = encoded(tmp_path, ".opus", "libopus", 1.0, 48000)
    with pytest.raises(AudioError, match=r"2\.0 s long: the limit is 1.5 s"):
        read_audio(one + one, max_seconds=1.5)
