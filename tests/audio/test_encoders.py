"""Audio is written in every format, to files and to pipes, and failures name the file."""

from __future__ import annotations

import errno
import io
import os
import threading
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import soundfile as sf
import torch

from makers.audio import audio_bytes, correlation, make_sine
from tokgen.audio.encoders import BITRATES, WRITTEN
from tokgen.audio.files import AudioWriter, read_audio, read_duration, write_audio

FULL = Path("/dev/full")


@pytest.mark.parametrize("rate", [16000, 24000, 44100])
@pytest.mark.parametrize("kind", BITRATES)
def test_lossy_formats_are_written_by_suffix(tmp_path, kind, rate):
    samples = make_sine(2.0, rate)
    path = tmp_path / f"new/a.{kind}"
    with AudioWriter(path, rate) as writer:
        for block in torch.from_numpy(samples).split(9_999):
            writer.write(block)
    waveform, found = read_audio(path, sample_rate=rate)
    assert found == rate
    assert abs(waveform.shape[-1] - len(samples)) <= 0.002 * rate  # m4a counts milliseconds
    assert correlation(waveform, samples) > 0.99
    assert read_duration(path) == pytest.approx(2.0, abs=0.03)


def test_lossy_formats_keep_the_rate_if_they_have_it(tmp_path):
    for kind, rate, expected in (
        ("mp3", 24000, 24000),
        ("mp3", 96000, 48000),
        ("opus", 16000, 16000),
        ("opus", 44100, 48000),
        ("m4a", 44100, 44100),
    ):
        write_audio(tmp_path / f"a.{kind}", make_sine(0.5, rate), rate)
        assert read_audio(tmp_path / f"a.{kind}")[1] == expected


@pytest.mark.parametrize("kind", BITRATES)
def test_the_bitrate_is_the_documented_one_or_the_given_one(tmp_path, kind):
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, 4 * 48000).astype(np.float32)
    for kbps in (None, 32):
        write_audio(tmp_path / f"a.{kind}", noise, 48000, kbps=kbps)
        found = 8 * (tmp_path / f"a.{kind}").stat().st_size / 4 / 1000
        assert found == pytest.approx(kbps or BITRATES[kind], rel=0.2)


@pytest.mark.parametrize("kind", WRITTEN)
def test_equal_audio_gives_equal_files(tmp_path, kind):
    for name in "ab":
        write_audio(tmp_path / f"{name}.{kind}", make_sine(), 16000)
    assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


@pytest.mark.parametrize("kind", WRITTEN)
def test_a_pipe_gets_the_bytes_of_a_file_and_gives_them_back(tmp_path, kind):
    write_audio(tmp_path / f"a.{kind}", make_sine(), 16000)
    incoming, outgoing = os.pipe()

    def write() -> None:
        with open(outgoing, "wb") as pipe:
            write_audio(pipe, make_sine(), 16000, format=kind)

    thread = threading.Thread(target=write)
    thread.start()
    with open(incoming, "rb") as pipe:
        waveform, rate = read_audio(pipe, name="<stdin>")
    thread.join()
    expected = read_audio(tmp_path / f"a.{kind}")
    assert rate == expected[1] and torch.equal(waveform, expected[0])


def test_an_open_file_gets_audio_and_stays_open():
    file = io.BytesIO(b"header")
    file.seek(6)
    assert write_audio(file, 2 * make_sine(), 16000, "FLOAT", format="wav") == 0
    written = file.getvalue()
    np.testing.assert_array_equal(sf.read(io.BytesIO(written[6:]))[0], 2 * make_sine())


def test_a_failed_write_gives_an_open_file_nothing():
    file = io.BytesIO()
    with pytest.raises(RuntimeError), AudioWriter(file, 16000, format="wav") as writer:
        writer.write(make_sine())
        raise RuntimeError
    assert file.getvalue() == b""


@pytest.mark.skipif(not FULL.exists(), reason="has no /dev/full")
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("seconds", [0.01, 20])
@pytest.mark.parametrize("kind", WRITTEN)
def test_a_full_disk_is_one_error_that_names_the_file(tmp_path, kind, seconds):
    """Early, while blocks are written, and late, when the last of them leave their buffer."""
    (tmp_path / f"a.{kind}.partial").symlink_to(FULL)
    path = tmp_path / f"a.{kind}"
    noise = np.random.default_rng(0).uniform(-0.3, 0.3, int(seconds * 16000)).astype(np.float32)
    with pytest.raises(OSError, match=rf"a\.{kind}: no space is left on the disk") as caught:
        write_audio(path, noise, 16000)
    assert caught.value.errno == errno.ENOSPC and str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not FULL.exists(), reason="has no /dev/full")
def test_a_full_disk_behind_an_open_file_is_named():
    with (
        pytest.raises(OSError, match="/dev/full: no space is left on the disk"),
        FULL.open("wb", buffering=0) as file,
    ):
        write_audio(cast(io.BufferedWriter, file), make_sine(), 16000, format="flac")


@pytest.mark.parametrize(
    ("name", "options", "match"),
    [
        ("a.ogg", {}, r"a\.ogg: suffix '.ogg' is unknown; use one of \.wav, \.flac, \.mp3"),
        ("a.wav", {"format": "aiff"}, "format 'aiff' is unknown"),
        ("a.wav", {"kbps": 64}, "wav has no bitrate"),
        ("a.mp3", {"subtype": "FLOAT"}, "mp3 has no sample types"),
        ("a.mp3", {"kbps": 4}, "mp3 at 4 kbps: must be 8 to 320"),
        ("a.opus", {"kbps": 300}, "opus at 300 kbps: must be 6 to 256"),
    ],
)
def test_unknown_formats_are_refused_before_the_work(tmp_path, name, options, match):
    with pytest.raises(ValueError, match=match):
        AudioWriter(tmp_path / name, 16000, **options)


def test_an_open_file_needs_a_format():
    with pytest.raises(ValueError, match=r"<open file>: format None is unknown; use one of"):
        AudioWriter(io.BytesIO(), 16000)
    write_audio(file := io.BytesIO(), make_sine(), 16000, format="wav")
    assert file.getvalue() == audio_bytes(make_sine())
