"""`--json` prints one JSON document of the result, and nothing else, on the standard output."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from makers.audio import make_tone
from makers.runs import make_run
from tokgen.audio.files import write_audio
from tokgen.cli import main as cli
from tokgen.cli import verbs


@pytest.fixture(autouse=True)
def zoo(tiny_codec_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))


@pytest.fixture
def said(capsys: pytest.CaptureFixture) -> Callable[..., Any]:
    """Run the command with --json; returns the parsed document."""

    def call(*args: object) -> Any:
        capsys.readouterr()
        assert cli.main([*map(str, args), "--json"]) == 0
        out = capsys.readouterr().out

        def refuse(constant: str) -> None:
            raise AssertionError(constant)  # NaN and Infinity are not JSON

        return json.loads(out, parse_constant=refuse)

    return call


def test_codecs_and_info(said) -> None:
    (tiny,) = [codec for codec in said("codecs")["codecs"] if codec["name"] == "tiny"]
    assert tiny["sample_rate"] == 16000 and tiny["frame_rate"] == 50.0
    about = said("info", "tiny")
    assert about["n_parameters"] > 0 and about["weight_hash"] and about["side_names"] == []


def test_encode_and_decode(said, tmp_path: Path) -> None:
    write_audio(tmp_path / "a.wav", make_tone(0.5, 0), 16000)
    codes = tmp_path / "a.safetensors"
    encoded = said("encode", tmp_path / "a.wav", "--codec", "tiny", "--out", codes)
    assert (encoded["path"], encoded["n_frames"]) == (str(codes), 25)
    decoded = said("decode", codes, "--out", tmp_path / "b.wav")
    assert decoded["n_samples"] == 8000


def test_tokenize(said, tiny_corpus: Path, tmp_path: Path) -> None:
    flags = ("--corpus", tiny_corpus, "--codec", "tiny", "--workers", "1")
    report = said("tokenize", *flags, "--out", tmp_path / "tokens")
    assert report["n_rows"] > 0 and report["rejections"] == []
    assert report["precision"]["precision"] == "float32"


def test_score_and_drift(said, tiny_corpus: Path, tmp_path: Path) -> None:
    flags = ("--corpus", tiny_corpus, "--split", "test", "--codec", "tiny")
    scores = said("score", *flags, "--metrics", "si_sdr,pesq", "--workers", "0")
    assert scores["scores"]["original"]["si_sdr"]["mean"] is None  # infinite
    assert scores["scores"]["tiny decoded"]["pesq"]["n"] == 2
    assert scores["codecs"][0]["codec"]["name"] == "tiny"
    drift = said("drift", *flags, "--out", tmp_path / "drift", "--passes", "2", "--clips", "1")
    assert drift["codecs"][0]["name"] == "tiny" and drift["differences"] == []


def test_report(said, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    written = said("report", run, "--clips", "1")
    assert written["path"] == str(run / "report.html") and written["n_runs"] == 1


def test_what_a_library_prints_goes_to_the_errors(said, monkeypatch, capsys) -> None:
    def chatty(s):
        print("Loaded the model")
        return verbs.codecs(s)

    chatty.__name__ = "codecs"
    verb = cli.VERBS["codecs"]
    monkeypatch.setitem(cli.VERBS, "codecs", type(verb)(chatty, verb.settings))
    assert "codecs" in said("codecs")


def test_an_error_prints_no_document(capsys: pytest.CaptureFixture) -> None:
    assert cli.main(["info", "tinny", "--json"]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.count("\n") == 1
