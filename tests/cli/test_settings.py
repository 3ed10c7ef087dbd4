"""Checks of the settings of verbs, before any work."""

from __future__ import annotations

import dataclasses
import multiprocessing
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tokgen.cli import main as cli
from tokgen.runs.workers import begin_worker


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("encode a.mp3 --codec speech-16k --out a.mp3", "a.mp3 is an input file"),
        ("encode a.mp3 --codec speech-16k --out link", "link is an input file"),
        ("decode a.mp3 --out a.mp3", "a.mp3 is an input file"),
        ("encode a.mp3 --codec speech-16k --out b.wav", "b.wav must end in .safetensors"),
        (
            "encode folder --codec speech-16k --out b.safetensors",
            "`tokgen tokenize` encodes folders",
        ),
        (
            "encode a.mp3 --codec speech-16k --out b --n_codebooks 0",
            "--n_codebooks is 0, but must be at least 1; omit --n_codebooks to keep all",
        ),
        ("score --corpus c --codec x --out b.txt", "b.txt must end in .json"),
        ("score --corpus c --codec x --workers -1", "workers is -1, but must be at least 0"),
        ("score --corpus c --codec x --mos squim", "mos squim needs --mos_reference"),
        ("score --corpus c --codec x --min_seconds 3 --max_seconds 2", "min_seconds 3 is more"),
        ("tokenize --corpus c --codec x --out d --shard_rows 0", "shard_rows is 0"),
        ("tokenize --corpus c --codec x --out d --workers -2", "workers is -2"),
        ("drift --corpus c --codec x --out d --samples -1", "samples is -1"),
        ("drift --corpus c --codec x --out d --clips 0", "clips is 0"),
        ("drift --corpus c --codec x --out d --clip_seconds -1", "clip_seconds is -1"),
        ("report folder --out page.txt", "page.txt must end in .html or .htm"),
        ("score --corpus c --codec x --metrics pesk", "did you mean pesq?"),
        ("info speech-16", "did you mean speech-16k?"),
        ("recipes copy vocode_mfc", "did you mean vocode_mfcc?"),
        ("recipes list vocode_mfcc", "`tokgen recipes list` takes no name"),
    ],
)
def test_wrong_settings_are_refused(
    line: str,
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.mp3").write_bytes(b"audio")
    Path("link").symlink_to("a.mp3")
    Path("folder").mkdir()
    assert cli.main(line.split()) == 2
    assert message in capsys.readouterr().err
    assert Path("a.mp3").read_bytes() == b"audio"


def test_recipe_is_copied_by_its_file_name(tmp_path: Path) -> None:
    assert cli.main(["recipes", "copy", "vocode_mfcc.py", "--to", str(tmp_path)]) == 0
    assert (tmp_path / "recipes/vocode_mfcc.py").is_file()


def test_warnings_of_a_verb_take_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    texts, before = [], warnings.formatwarning

    def run(_: object) -> None:
        texts.append(warnings.formatwarning("MOS: squim\nfailed", UserWarning, "a.py", 1))

    verb = dataclasses.replace(cli.VERBS["codecs"], run=run)
    cli.run(verb, [])
    assert texts == ["warning: MOS: squim failed\n"]
    assert warnings.formatwarning is before


def test_warnings_of_the_command_have_no_source_line(tmp_path: Path) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad/config.json").write_text("{}")
    done = subprocess.run(
        [sys.executable, "-m", "tokgen", "codecs"],
        env=os.environ | {"TOKGEN_ZOO": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and done.stderr.count("\n") == 1
    assert done.stderr.startswith("warning: left out of the zoo: ")


def warn_in_worker() -> None:
    begin_worker()
    warnings.warn("several\nlines", stacklevel=1)


def test_warnings_of_workers_have_no_source_line(capfd: pytest.CaptureFixture) -> None:
    worker = multiprocessing.get_context("spawn").Process(target=warn_in_worker)
    worker.start()
    worker.join()
    assert capfd.readouterr().err == "warning: several lines\n"
