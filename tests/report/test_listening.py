"""Tests of which audio files are read."""

from __future__ import annotations

import json
import re
from pathlib import Path

from makers.pages import data_of, sounds_of
from makers.runs import RATE, put, tone
from tokgen.audio.files import write_audio
from tokgen.cli import main as cli
from tokgen.report.page import write_report


def test_paths_and_links_are_not_followed(samples_run: Path, tmp_path: Path):
    secret = tmp_path / "secret.wav"
    write_audio(secret, tone(440, 0.6), RATE)
    (samples_run / "samples" / "link.wav").symlink_to(secret)
    index = json.loads((samples_run / "samples" / "index.json").read_text())
    names = [c["name"] for c in index["columns"]]
    for clip, tried in zip(
        index["clips"],
        (["../../secret.wav", str(secret), "link.wav"], ["", "..", "x" * 300], [None, 3, "a\0b"]),
        strict=True,
    ):
        clip["files"] = dict(zip(names, tried, strict=True))
    put(samples_run / "samples" / "index.json", index)
    out = tmp_path / "x.html"
    written = write_report([samples_run], out, progress=False)
    assert written.n_sounds == 0 and len(written.problems) == 9
    assert not sounds_of(out.read_text())


def test_links_in_a_circle_are_missing_audio(samples_run: Path, tmp_path: Path):
    path = samples_run / "samples" / "000.original.wav"
    path.unlink()
    path.symlink_to(path.name)
    written = write_report([samples_run], tmp_path / "x.html", progress=False)
    assert written.n_sounds == 8 and len(written.problems) == 1


def test_damaged_audio_is_reported_and_marked_as_missing(samples_run: Path, tmp_path: Path, capsys):
    (samples_run / "samples" / "000.generated.wav").write_bytes(b"RIFF")
    (samples_run / "samples" / "001.resynthesis.wav").unlink()
    out = tmp_path / "deep" / "x.html"
    assert cli.main(["report", str(samples_run), "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert "missing clip0, speech-16k generated: cannot read 000.generated.wav" in said.err
    assert "missing clip1, speech-16k resynthesis" in said.err and "no such file" in said.err
    assert re.search(
        r"x\.html: \d\.\d MB, 1 run, 7 sounds of 3 utterances as 16-bit WAV, 2 missing",
        said.out,
    )
    page = out.read_text()
    assert page.count('<span class="picture">missing</span>') == 2
    assert data_of(page)["listenings"][0]["clips"][0]["sounds"][2] is None
