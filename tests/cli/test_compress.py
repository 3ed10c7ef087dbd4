"""`tokgen compress`, `tokgen decompress` and `tokgen info file.tgc`."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from makers.audio import make_tone
from makers.codecs import make_variable, save_codec
from tokgen.audio.files import read_audio, write_audio
from tokgen.bitstream.tgc.entropy import StaticCounts
from tokgen.cli import main as cli
from tokgen.zoo.lookup import load_codec

pytestmark = pytest.mark.usefixtures("folder")


def test_a_file_is_compressed_described_and_decompressed(tool, folder: Path) -> None:
    code, out, err = tool("compress a.wav --codec tiny --out a.tgc")
    assert (code, err) == (0, "") and out.startswith("a.tgc: 0.30 s, ")
    code, out, _ = tool("info a.tgc")
    assert code == 0 and "codec        tiny" in out and "4 levels of 60 x 15 frames" in out
    facts = json.loads(tool("info a.tgc --json")[1])
    assert facts["streams"][0]["n_samples"] == 4800
    code, out, err = tool("decompress a.tgc --out b.wav")
    assert (code, out, err) == (0, "b.wav: 0.30 s\n", "")
    waveform, _ = read_audio("a.wav")
    expected = load_codec("tiny").roundtrip(waveform[None])[0].clamp(-1, 1)
    assert torch.allclose(read_audio("b.wav")[0], expected, atol=1 / 32_000)


def test_a_part_is_decompressed(tool, folder: Path) -> None:
    assert tool("compress a.wav --codec tiny --out in/a.tgc --block_seconds 0.1")[0] == 0
    assert tool("decompress in/a.tgc --out whole.wav")[0] == 0
    for line in ("in/a.tgc --out part.wav", "in --out parts/"):
        assert tool(f"decompress {line} --start 0.11 --seconds 0.125")[0] == 0
    whole, part, same = (read_audio(x)[0] for x in ("whole.wav", "part.wav", "parts/a.wav"))
    assert torch.equal(part, whole[:, 1760:3760]) and torch.equal(same, part)
    code, _, err = tool("decompress in/a.tgc --out late.wav --start 3")
    assert code == 2 and "in/a.tgc: start is 3 s, but the audio has 0.30 s" in err


def test_stable_audio_is_compressed_to_the_same_bytes(tool, folder: Path) -> None:
    assert tool("compress a.wav --codec tiny --out a.tgc")[0] == 0
    code, out, err = tool("decompress a.tgc --out stable.wav --stable")
    assert (code, err) == (0, "") and "100.00 % of codes come back" in out
    assert tool("compress stable.wav --codec tiny --out again.tgc")[0] == 0
    assert Path("again.tgc").read_bytes() == Path("a.tgc").read_bytes()
    assert tool("decompress a.tgc stable.wav --out b --stable --start 0.1")[0] == 2


def test_folders_and_jobs(tool, folder: Path) -> None:
    for i, name in enumerate(("in/a.wav", "in/deep/b.flac")):
        write_audio(name, make_tone(0.6, i), 16000)
    code, out, err = tool("compress in --codec tiny --out out --jobs 2 --entropy packed")
    assert (code, err, out.count("\n")) == (0, "", 2)
    assert (folder / "out/deep/b.tgc").exists()
    code, _, _ = tool("decompress out --out audio --format flac")
    assert code == 0 and (folder / "audio/deep/b.flac").exists()
    code, _, err = tool("decompress in --out audio")
    assert code == 2 and "no .tgc files in in" in err


@pytest.fixture
def pipe(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, bytes], tuple[int, bytes]]:
    """Run the command with a standard input; returns exit code and standard output."""

    def call(line: str, data: bytes) -> tuple[int, bytes]:
        stdin = io.TextIOWrapper(io.BytesIO(data))
        stdout = io.TextIOWrapper(io.BytesIO())
        monkeypatch.setattr(sys, "stdin", stdin)
        monkeypatch.setattr(sys, "stdout", stdout)
        return cli.main(line.split()), stdout.buffer.getvalue()

    return call


def test_pipes(pipe) -> None:
    code, data = pipe("compress - --codec tiny --out -", Path("a.wav").read_bytes())
    assert code == 0 and data[:4] == b"\x89TGC"
    code, audio = pipe("decompress - --out -", data)
    assert code == 0 and audio[:4] == b"RIFF" and len(audio) > 2 * 4800
    code, _ = pipe("decompress - --out b.wav", data[:40])
    assert code == 2 and not Path("b.wav").exists()


def test_bitrates_and_models(tool, folder: Path) -> None:
    assert tool("compress a.wav --codec tiny --out a.tgc --bitrate 0.6 --entropy packed")[0] == 0
    assert "2 levels" in tool("info a.tgc")[1]
    StaticCounts(np.arange(1, 241).reshape(4, 60)).save("table.safetensors")
    line = "compress a.wav --codec tiny --out s.tgc --entropy table.safetensors"
    assert tool(line)[0] == 0 and "entropy      static" in tool("info s.tgc")[1]
    code, _, err = tool("decompress s.tgc --out s.wav")
    assert code == 2 and "is not beside the codec 'tiny'" in err
    assert tool("decompress s.tgc --out s.wav --entropy table.safetensors")[0] == 0


def test_a_variable_bitrate(tool, folder: Path) -> None:
    codec = make_variable(None)
    save_codec(codec, folder / "vbr")
    write_audio("a.wav", make_tone(2.0, 0), 16000)
    for i, line in enumerate(
        ("vbr --level 0.7", "vbr --bitrate 0.8", "vbr:0.8", "vbr --level 2 --n_codebooks 2")
    ):
        code, out, err = tool(f"compress a.wav --codec {line} --out {i}.tgc")
        assert (code, err) == (0, "") and out.endswith(", packed\n")
        assert tool(f"decompress {i}.tgc --codec vbr --out {i}.wav")[0] == 0
        assert "levels per frame" in tool(f"info {i}.tgc")[1]
    waveform = read_audio("a.wav")[0][None]
    for i, more in ((0, {"level": 0.7}), (1, {"bitrate": 0.8}), (2, {"bitrate": 0.8})):
        encoded = codec.encode_with_side(waveform, **more)
        wanted = codec.decode(encoded.codes, waveform.shape[-1], encoded.side)[0].clamp(-1, 1)
        assert torch.allclose(read_audio(f"{i}.wav")[0], wanted, atol=1 / 32_000)
    stream = json.loads(tool("info 3.tgc --json")[1])["streams"][0]
    assert stream["n_codebooks"] == 2 and 1 < stream["mean_depth"] <= 2


def test_damage_is_told_and_the_exit_code_is_1(tool, pipe, capsys: pytest.CaptureFixture) -> None:
    tool("compress a.wav --codec tiny --out a.tgc --block_seconds 0.2")
    data = bytearray(Path("a.tgc").read_bytes())
    data[data.index(b"TGCB") + 30] ^= 1
    Path("a.tgc").write_bytes(data)
    code, out, _ = tool("decompress a.tgc --out b.wav")
    assert code == 1 and "damaged: frames 0..9 are lost: wrong checksum" in out
    assert tool("info a.tgc")[0] == 1
    for line in ("decompress - --out -", "decompress a.tgc --out -"):
        code, audio = pipe(line, data)
        assert code == 1 and audio == Path("b.wav").read_bytes()
    assert "damaged: frames 0..9 are lost" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("compress a.wav --codec tiny --out b.wav", "must end in .tgc"),
        ("compress none.wav --codec tiny --out a.tgc", "no such file: none.wav"),
        ("compress a.wav --codec tinny --out a.tgc", "did you mean tiny"),
        ("compress a.wav --codec tiny --out a.tgc --jobs 0", "--jobs is 0"),
        ("compress a.wav --codec tiny --out a.tgc --entropy pakced", "did you mean packed"),
        ("compress a.wav --codec tiny --out a.tgc --bitrate 0.1", "0.1 kbps: tiny takes"),
        ("compress a.wav --codec tiny --out a.tgc --bitrate 1 --n_codebooks 1", "give one"),
        ("compress a.wav --codec tiny --out a.tgc --bitrate 1 --level 1", "give one"),
        ("compress a.wav --codec tiny --out a.tgc --level 0", "--level is 0"),
        ("compress a.wav --codec tiny --out a.tgc --level 1", "tiny has no variable bitrate"),
        ("decompress a.wav --out b.wav", "it is not a .tgc file"),
        ("info none.tgc", "no such file: none.tgc"),
        ("decompress none.tgc --out b.wav --start -1", "--start is -1, but must be at least 0"),
        ("decompress none.tgc --out b.wav --seconds 0", "--seconds is 0, but must be above 0"),
    ],
)
def test_mistakes(tool, line: str, why: str) -> None:
    code, out, err = tool(line)
    assert (code, out) == (2, "") and why in err


def test_a_file_of_another_kind_is_told_its_verb(tool, folder: Path) -> None:
    assert tool("compress a.wav --codec tiny --out a.tgc")[0] == 0
    assert tool("encode a.wav --codec tiny --out a.safetensors")[0] == 0
    for line, message in (
        ("decode a.tgc --out b.wav", "a.tgc is a .tgc file: use `tokgen decompress`"),
        ("decompress a.safetensors --out b.wav", "`tokgen decode` reads files of `tokgen encode`"),
        ("info a.wav", "a.wav is a file: give the name or the folder of a codec"),
    ):
        code, _, err = tool(line)
        assert code == 2 and message in err and err.count("\n") == 1
