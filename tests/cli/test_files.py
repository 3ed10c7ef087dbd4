"""`tokgen encode` and `tokgen decode`: several files, folders, and the standard streams."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from makers.audio import make_tone
from tokgen.audio.files import read_audio, write_audio
from tokgen.bitstream.codes_file import read_codes
from tokgen.cli import main as cli
from tokgen.zoo.lookup import load_codec

pytestmark = pytest.mark.usefixtures("folder")


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_several_files_go_into_a_folder(tool, folder: Path) -> None:
    code, out, err = tool("encode a.wav b.flac --codec tiny --out new/codes")
    assert (code, err) == (0, "") and out.count("\n") == 2
    assert names(folder / "new/codes") == ["a.safetensors", "b.safetensors"]
    code, out, err = tool("decode new/codes/a.safetensors new/codes/b.safetensors --out audio/")
    assert code == 0 and names(folder / "audio") == ["a.wav", "b.wav"]
    line = "decode new/codes/a.safetensors new/codes/b.safetensors --out audio --format flac"
    assert tool(line)[0] == 0
    assert names(folder / "audio") == ["a.flac", "a.wav", "b.flac", "b.wav"]


@pytest.mark.parametrize("suffix", ["mp3", "opus", "m4a"])
def test_lossy_formats_are_written(suffix: str, tool, folder: Path) -> None:
    assert tool("encode a.wav --codec tiny --out a.safetensors")[0] == 0
    assert tool(f"decode a.safetensors --out a.{suffix}")[0] == 0
    assert tool(f"decode a.safetensors --out new/ --format {suffix}")[0] == 0
    for path in (folder / f"a.{suffix}", folder / f"new/a.{suffix}"):
        assert read_audio(path, sample_rate=16000)[0].shape[-1] == pytest.approx(4800, abs=1200)


@pytest.mark.parametrize("suffix", ["wav", "flac"])
def test_stable_files_give_their_codes_again(suffix: str, tool, folder: Path) -> None:
    assert tool("encode a.wav --codec tiny --out a.safetensors")[0] == 0
    code, out, err = tool(f"decode a.safetensors --out stable.{suffix} --stable")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0] == f"stable.{suffix}: 0.30 s"
    assert lines[1] == "  100.00 % of codes come back, 100.00 % after int16"
    assert " steps, change " in lines[2] and lines[2].endswith(" dB below the audio")
    assert tool(f"encode stable.{suffix} --codec tiny --out again.safetensors")[0] == 0
    tool(f"decode a.safetensors --out plain.{suffix}")
    tool(f"encode plain.{suffix} --codec tiny --out plain.safetensors")
    first, again, plain = (read_codes(f"{x}.safetensors").codes for x in ("a", "again", "plain"))
    assert torch.equal(again, first) and not torch.equal(plain, first)


def test_several_stable_files_and_json(tool, folder: Path) -> None:
    assert tool("encode a.wav b.flac --codec tiny --out codes")[0] == 0
    files = "codes/a.safetensors codes/b.safetensors"
    code, out, _ = tool(f"decode {files} --out audio --stable --robust_to dither --json")
    assert code == 0
    for content in json.loads(out):
        assert content["kept"] == 1 and content["survived"] == {"dither": 1.0}
        assert content["steps"] > 0 and content["snr_db"] > 0
    assert tool("encode audio/a.wav audio/b.wav --codec tiny --out again")[0] == 0
    for name in ("a.safetensors", "b.safetensors"):
        first, again = (read_codes(folder / x / name).codes for x in ("codes", "again"))
        assert torch.equal(first, again)


def test_the_bitrate_of_the_file_is_survived_too(tool, folder: Path) -> None:
    assert tool("encode a.wav --codec tiny --out a.safetensors")[0] == 0
    line = "decode a.safetensors --stable --stable_steps 3 --json --out"
    content = json.loads(tool(f"{line} a.opus")[1])
    assert list(content["survived"]) == ["int16", "opus:64"]
    again, first = read_audio("a.opus", sample_rate=16000)[0], read_codes("a.safetensors").codes
    codes = load_codec("tiny").encode(again[None])[0, :, : first.shape[1]]
    assert content["kept"] == (codes == first[:, : codes.shape[1]]).sum().item() / first.numel()
    with pytest.warns(UserWarning, match="m4a is no transport of stable decoding"):
        assert json.loads(tool(f"{line} a.m4a")[1])["kept"] < 1


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--stable_steps 3", "--stable_steps is given without stable"),
        ("--robust_to mp3", "--robust_to is given without stable"),
        ("--stable --robust_to mp4:3", "transport 'mp4:3' (did you mean mp3?)"),
        ("--stable --robust_to int16,mp3:999", "mono mp3 has 8 to 320 kbps"),
        ("--stable --stable_steps -1", "--stable_steps is -1"),
    ],
)
def test_wrong_settings_of_stable_decoding(flags: str, message: str, tool) -> None:
    code, _, err = tool(f"decode none.safetensors --out a.wav {flags}")
    assert code == 2 and message in err


def test_one_file_goes_into_an_existing_folder(tool, folder: Path) -> None:
    (folder / "codes").mkdir()
    assert tool("encode a.wav --codec tiny --out codes")[0] == 0
    assert tool("encode b.flac --codec tiny --out new/")[0] == 0
    assert names(folder / "codes") + names(folder / "new") == ["a.safetensors", "b.safetensors"]
    (folder / "a.flac").write_bytes((folder / "b.flac").read_bytes())
    before = (folder / "codes/a.safetensors").read_bytes()
    code, _, err = tool("encode a.flac --codec tiny --out codes")  # another utterance
    assert code == 2 and "codes/a.safetensors already exists" in err
    assert (folder / "codes/a.safetensors").read_bytes() == before
    assert tool("encode a.wav a.flac --codec tiny --out codes")[0] == 0
    assert names(folder / "codes")[1:] == ["a.safetensors", "a.wav.safetensors"]


def test_a_bad_file_is_named_and_the_rest_is_done(tool, folder: Path) -> None:
    (folder / "bad.wav").write_bytes(b"")
    line = "encode a.wav bad.wav none.wav b.flac --codec tiny --out codes"
    code, out, err = tool(line)
    assert code == 1 and names(folder / "codes") == ["a.safetensors", "b.safetensors"]
    assert err.splitlines() == [
        "failed: bad.wav: empty file (0 bytes)",
        "failed: none.wav: no such file",
    ]
    assert out.endswith("2 written, 2 failed\n")
    code, out, _ = tool(f"{line} --overwrite --json")
    found = json.loads(out)
    assert code == 1 and [entry.get("error") is None for entry in found] == [
        True,
        True,
        False,
        False,
    ]
    assert found[0]["path"] == "codes/a.safetensors" and found[2]["file"] == "bad.wav"


def test_existing_files_stop_before_any_work(tool, folder: Path) -> None:
    (folder / "codes").mkdir()
    (folder / "codes/b.safetensors").touch()
    code, _, err = tool("encode a.wav b.flac --codec tiny --out codes")
    assert code == 2 and "codes/b.safetensors already exists" in err
    assert names(folder / "codes") == ["b.safetensors"]


def test_odd_names(tool, folder: Path) -> None:
    odd = ["null", "1.5", "[a].wav", "true.wav", "a=b.wav", "1e3.wav", "\\x.wav", "{b}", "n" * 255]
    for name in odd:
        (folder / name).write_bytes((folder / "a.wav").read_bytes())
        assert cli.main(["encode", name, "--codec", "tiny", "--out", "codes.safetensors"]) == 0
        assert cli.main(["decode", "codes.safetensors", "--out", "x.wav", "--overwrite"]) == 0
        (folder / "codes.safetensors").unlink()
    long = "n" * 243 + ".safetensors"
    assert cli.main(["encode", "a.wav", "--codec", "tiny", "--out", long]) == 0


def run(line: str, data: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "tokgen", *line.split()], input=data, capture_output=True
    )


def test_standard_input_and_output(folder: Path, tool) -> None:
    audio = (folder / "a.wav").read_bytes()
    codes = run("encode - --codec tiny --out -", audio)
    assert codes.returncode == 0 and b"standard output: 4 levels x 15 frames" in codes.stderr
    assert tool("encode a.wav --codec tiny --out a.safetensors")[0] == 0
    (folder / "piped.safetensors").write_bytes(codes.stdout)
    assert read_codes("piped.safetensors").codes.equal(read_codes("a.safetensors").codes)
    decoded = run("decode - --out -", codes.stdout)
    assert decoded.returncode == 0 and decoded.stderr.startswith(b"standard output: 0.30 s")
    assert tool("decode a.safetensors --out decoded.wav")[0] == 0
    assert decoded.stdout == (folder / "decoded.wav").read_bytes()


def test_standard_output_has_the_format_that_is_given(
    tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert tool("encode a.wav --codec tiny --out a.safetensors")[0] == 0
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO()))
    assert cli.main(["decode", "a.safetensors", "--out", "-", "--format", "flac"]) == 0
    assert sys.stdout.buffer.getvalue().startswith(b"fLaC")


def test_standard_input_to_a_file(folder: Path, tool, monkeypatch: pytest.MonkeyPatch) -> None:
    def pipe(data: bytes) -> None:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))

    pipe((folder / "a.wav").read_bytes())
    assert tool("encode - --codec tiny --out a.safetensors")[0] == 0
    assert read_codes("a.safetensors").n_samples == 4800
    pipe((folder / "a.safetensors").read_bytes())
    assert tool("decode - --out b.wav")[0] == 0
    assert read_audio("b.wav")[0].shape[-1] == 4800
    for data, reason in ((b"", "empty file (0 bytes)"), (b"RIFF", "cannot read standard input: ")):
        pipe(data)
        code, _, err = tool("encode - --codec tiny --out x.safetensors")
        assert code == 2 and reason in err and "/" not in err
    pipe(b"noise")
    code, _, err = tool("decode - --out y.wav")
    assert code == 2 and err.startswith("error: standard input is not a codes file")
    assert names(folder) == ["a.safetensors", "a.wav", "b.flac", "b.wav"]


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("encode - --codec tiny --out b.safetensors", "nothing is piped into it"),
        ("decode - --out b.wav", "nothing is piped into it"),
        ("encode a.wav --codec tiny --out -", "to a terminal: redirect it to a file"),
        ("encode - a.wav --codec tiny --out codes", "give it without other files"),
        ("encode a.wav b.flac --codec tiny --out -", "--out - takes one file"),
        ("encode a.wav --codec tiny --out - --json", "--json and --out - both write to"),
    ],
)
def test_streams_that_cannot_be_used(
    line: str, message: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(sys, "stdin", Terminal())
    monkeypatch.setattr(sys, "stdout", Terminal())
    assert cli.main(line.split()) == 2
    err = capsys.readouterr().err
    assert message in err and err.count("\n") == 1


def test_standard_input_needs_the_name_of_a_file(
    folder: Path, tool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    code, _, err = tool(f"encode - --codec tiny --out {folder}")
    assert code == 2 and "give the name of a file for the standard input" in err


@pytest.mark.parametrize(
    "line",
    ["codecs", "--help", "encode --help", "encode a.wav --codec tiny --out -", "codecs --json"],
)
def test_a_closed_output_gives_no_traceback(line: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "tokgen", *line.split()], stdout=writer, stderr=subprocess.PIPE
    )
    os.close(writer)
    assert done.returncode in (141, 0 if "--help" in line else 141) and done.stderr == b""


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("line", ["codecs", "encode a.wav --codec tiny --out -"])
def test_a_full_output_is_one_line(line: str) -> None:
    with open("/dev/full", "wb") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tokgen", *line.split()], stdout=full, stderr=subprocess.PIPE
        )
    text = b"error: the standard output cannot be written to: No space left on device\n"
    assert (done.returncode, done.stderr) == (2, text)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_leaves_nothing_behind(folder: Path, number: int) -> None:
    seconds = 900
    write_audio("long.wav", torch.randn(1, seconds * 16000) * 0.01, 16000)
    out = folder / "codes"
    out.mkdir()
    line = "encode a.wav long.wav --codec tiny --out codes"
    child = subprocess.Popen(
        [sys.executable, "-m", "tokgen", *line.split()],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    while not (out / "a.safetensors").exists():
        assert child.poll() is None and time.monotonic() < deadline
        time.sleep(0.01)
    child.send_signal(number)
    _, err = child.communicate(timeout=120)
    assert child.returncode == 128 + number
    assert names(out) == ["a.safetensors"] and "Traceback" not in err
    assert err.startswith("interrupted; files that were written are whole")


def test_the_grid_of_decoded_audio_is_found(tool, folder: Path) -> None:
    write_audio("long.wav", make_tone(1.5, 3), 16000)
    assert tool("encode long.wav --codec tiny --out long.safetensors")[0] == 0
    assert tool("decode long.safetensors --out decoded.wav")[0] == 0
    audio = read_audio("decoded.wav")[0][:, 1000:]
    write_audio("cut.wav", audio, 16000)
    assert tool("encode cut.wav --codec tiny --out cut.safetensors --grid auto")[0] == 0
    found = read_codes("cut.safetensors")
    assert found.side["lead"].tolist() == [1000 % 320]
    assert found.codes.shape[1] == -(-(audio.shape[1] + 40) // 320)
    assert tool("encode cut.wav --codec tiny --out hand.safetensors --grid 280")[0] == 0
    assert torch.equal(read_codes("hand.safetensors").codes, found.codes)
    assert tool("decode cut.safetensors --out back.wav")[0] == 0
    assert read_audio("back.wav")[0].shape == audio.shape
    code, _, err = tool("encode cut.wav --codec tiny --out bad.safetensors --grid 320")
    assert code == 2 and "an offset of 0..319" in err
    assert tool("encode cut.wav a.wav --codec tiny --out codes --grid auto")[0] == 0
    assert torch.equal(read_codes("codes/cut.safetensors").codes, found.codes)
