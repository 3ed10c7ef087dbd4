"""FFmpeg decodes in a child process: what harms it is an error of the file alone."""

from __future__ import annotations

import io
import multiprocessing
import os
import resource
import signal
import socket
import struct
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
import pytest
import torch

from makers.audio import audio_bytes, make_sine, write_with_ffmpeg
from makers.paths import ROOT
from tokgen.audio import ffmpeg
from tokgen.audio.ffmpeg_child import MEMORY, SECONDS
from tokgen.audio.files import AudioError, open_blocks, read_audio, read_duration


@pytest.fixture
def m4a(tmp_path) -> Path:
    write_with_ffmpeg(tmp_path / "a.m4a", make_sine(8, 44100), 44100, "aac")
    return tmp_path / "a.m4a"


@pytest.mark.parametrize(
    ("name", "codec", "layout"),
    [
        ("a.m4a", "aac", "7.1"),
        ("a.mka", "libopus", "7.1"),
        ("a.webm", "libopus", "7.1"),
        ("a.mka", "pcm_s16le", "9 channels"),
        ("a.mka", "pcm_f32le", "hexadecagonal"),
        ("a.wav", "pcm_s16le", "17 channels"),
    ],
)
def test_eight_channels_and_more(tmp_path, name, codec, layout):
    sine = make_sine(1, 48000)
    with av.open(str(tmp_path / name), "w") as container:
        stream = container.add_stream(codec, rate=48000, layout=layout)
        encoder = stream.codec_context
        encoder.open()
        samples = np.repeat(sine, encoder.layout.nb_channels)[None]
        frame = av.AudioFrame.from_ndarray(samples, "flt", layout)
        frame.sample_rate, frame.pts = 48000, 0
        fit = av.AudioResampler(encoder.format, layout, 48000, encoder.frame_size or None)
        for part in [*fit.resample(frame), *fit.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))
    waveform, rate = read_audio(tmp_path / name)
    assert rate == 48000 and abs(waveform.shape[-1] - 48000) <= 1200
    assert waveform.abs().max() == pytest.approx(0.3, abs=0.06)


@pytest.mark.parametrize("death", [signal.SIGSEGV, signal.SIGKILL, signal.SIGXCPU])
def test_a_crash_rejects_the_file_by_name_and_the_next_file_is_read(m4a, death):
    expected = read_audio(m4a)[0]
    (child,) = ffmpeg._idle
    with open_blocks(m4a) as blocks:
        parts = iter(blocks)
        next(parts)
        child.process.send_signal(death)
        child.process.wait()
        with pytest.raises(AudioError, match=r"a\.m4a: FFmpeg (crashed|decoded for)") as caught:
            list(parts)
    assert ("without a result" if death == signal.SIGXCPU else death.name) in str(caught.value)
    assert torch.equal(read_audio(m4a)[0], expected)


def test_a_crash_between_files_harms_none(m4a):
    expected = read_audio(m4a)[0]
    (child,) = ffmpeg._idle
    child.process.kill()
    child.process.wait()
    assert torch.equal(read_audio(m4a)[0], expected)


def test_one_child_serves_many_files_and_is_started_when_needed(m4a):
    read_audio(m4a)
    (child,) = ffmpeg._idle
    for _ in range(3):
        assert read_duration(m4a) == pytest.approx(8, abs=0.01)
        with pytest.raises(AudioError):
            read_audio(b"no audio" * 100)
        with pytest.raises(AudioError), open_blocks(m4a, max_seconds=1):
            pass
    assert ffmpeg._idle == [child] and child.process.poll() is None
    read_audio(audio_bytes(make_sine()))  # soundfile needs none
    with open_blocks(m4a) as one, open_blocks(m4a) as two:  # two at a time have two
        for first, second in zip(one, two, strict=True):
            assert torch.equal(first, second)
    assert len(ffmpeg._idle) == 1


def test_threads_decode_at_the_same_time(m4a):
    expected, found = read_audio(m4a)[0], []
    threads = [threading.Thread(target=lambda: found.append(read_audio(m4a)[0])) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 3 and all(torch.equal(waveform, expected) for waveform in found)
    assert len(ffmpeg._idle) <= 1


def _length(path: Path) -> int:
    return read_audio(path)[0].shape[-1]


def test_forked_workers_start_children_of_their_own(m4a):
    n_samples = _length(m4a)
    with multiprocessing.get_context("fork").Pool(2) as pool:  # daemons, which may have no children
        assert pool.map(_length, [m4a] * 4) == [n_samples] * 4
    assert _length(m4a) == n_samples


def test_the_child_finds_the_package_from_any_folder(tmp_path, m4a):
    """A script in a checkout finds tokgen by its folder, and may leave that folder later."""
    code = (
        f"import os; from tokgen.audio.files import read_audio; os.chdir({str(tmp_path)!r})\n"
        "print(read_audio('a.m4a')[1])"
    )
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [sys.executable, "-c", code]
    run = subprocess.run(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, check=True)
    assert run.stdout == b"44100\n"


def test_ctrl_c_is_for_the_parent(m4a):
    read_audio(m4a)
    (child,) = ffmpeg._idle
    assert os.getpgid(child.process.pid) != os.getpgid(0)
    child.process.send_signal(signal.SIGINT)
    assert _length(m4a) and ffmpeg._idle == [child]


def test_a_lost_connection_is_no_damage(m4a):
    class Lost(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > 20_000:
                raise BrokenPipeError("lost")
            return super().read(size)

    with pytest.raises(BrokenPipeError, match="lost"):
        read_audio(Lost(m4a.read_bytes()), name="a.m4a")
    assert _length(m4a)


def test_memory_is_limited(tmp_path):
    """The header of a TTA file promises frames, for which FFmpeg allocates memory."""
    write_with_ffmpeg(tmp_path / "a.tta", make_sine(), 16000, "tta")
    data = bytearray((tmp_path / "a.tta").read_bytes())
    data[14:18] = struct.pack("<I", 0x7FFFFFFF)
    with pytest.raises(AudioError, match=r"row 3"):
        read_audio(bytes(data), name="row 3")
    assert _length(tmp_path / "a.tta") == 16000


def test_time_and_memory_of_the_child_are_limited(m4a):
    before = _length(m4a)
    (child,) = ffmpeg._idle
    seconds, _ = resource.prlimit(child.process.pid, resource.RLIMIT_CPU)
    n_bytes, _ = resource.prlimit(child.process.pid, resource.RLIMIT_AS)
    assert SECONDS < seconds < SECONDS + 30
    assert MEMORY < n_bytes < 2 * MEMORY
    resource.prlimit(child.process.pid, resource.RLIMIT_AS, (1 << 20, 1 << 20))
    with pytest.raises(AudioError, match=r"a\.m4a: .*(memory|crashed)"):
        read_audio(m4a)
    assert _length(m4a) == before


@pytest.mark.parametrize("file_format", ["CAF", "W64", "AU", "AIFF"])
@pytest.mark.parametrize("suffix", [".wav", ".flac", ".m4a"])
def test_headers_that_point_outside_of_the_file(tmp_path, file_format, suffix):
    """FFmpeg seeks to such places, which the system refuses (errno 22)."""
    data = audio_bytes(make_sine(0.1), file_format=file_format)
    path = tmp_path / f"a{suffix}"
    for place in range(0, 64, 2):
        damaged = bytearray(data)
        damaged[place : place + 8] = b"\xff" * 8
        path.write_bytes(damaged)
        try:
            waveform, _ = read_audio(path, max_seconds=60)
            assert waveform.isfinite().all()
        except AudioError as error:
            assert error.source == str(path) and error.reason


def test_pipes_sockets_and_devices_are_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.wav")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "s.wav"))
        for path, kind in (
            (tmp_path / "pipe.wav", "a named pipe"),
            (tmp_path / "s.wav", "a socket"),
            (Path("/dev/zero"), "a device"),
            (tmp_path, "a folder"),
        ):
            with pytest.raises(AudioError, match=f"not a regular file, but {kind}"):
                read_audio(path)
            assert read_duration(path) is None
    (tmp_path / "b.wav").symlink_to(tmp_path / "gone.wav")
    with pytest.raises(AudioError, match=r"b\.wav: a link to a file that is missing"):
        read_audio(tmp_path / "b.wav")


def test_mpg123_prints_nothing(tmp_path, capfd):
    write_with_ffmpeg(tmp_path / "a.mp3", make_sine(2), 16000, "libmp3lame")
    data = bytearray((tmp_path / "a.mp3").read_bytes())
    for place in range(2000, len(data) - 200, 700):
        data[place : place + 150] = b"\0" * 150
    for damaged in (data, data[:3000], data[:1000] + bytes(5000) + data[1000:]):
        with suppress(AudioError):
            read_audio(bytes(damaged))
    os.write(2, b"still there\n")
    assert capfd.readouterr().err == "still there\n"
