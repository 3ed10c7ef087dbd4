"""The folder of a drift measurement: continue, refuse, replace."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from makers.codecs import BlockCodec
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.drift import passes, phase
from tokgen.drift.compare import measure_drift
from tokgen.drift.folder import FILES
from tokgen.report.listening import read_drift_audio

SHORT = {"clip_seconds": 0.5, "passes": 3, "progress": False}


@pytest.fixture
def corpus(tiny_corpus: Path) -> Corpus:
    return open_corpus(tiny_corpus, split="test")


@pytest.fixture
def measured(corpus: Corpus, tmp_path: Path) -> Path:
    """A folder with drift and phase of a codec over three passes."""
    measure_drift(BlockCodec(), corpus, tmp_path / "drift", phase=True, **SHORT)
    assert all((tmp_path / "drift" / name).is_file() for name in FILES)
    return tmp_path / "drift"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"passes": 4}, "passes was 3, now 4"),
        ({"clip_seconds": 0.4}, "clip_seconds was 0.5, now 0.4"),
        ({"clips": 1}, "clips was 2, now 1"),
        ({"match_level": False}, "match_level was true, now false"),
        ({"shift": 37}, "shift was 0, now 37"),
        ({"shift": "random"}, "shift was 0, now random"),
        ({"scored": [1, 3]}, "scored was null, now .1, 3."),
        ({"protocol": "paper", "clips": 2}, "protocol was first, now paper"),
    ],
)
def test_other_settings_are_refused_by_name(change, said, corpus: Corpus, measured: Path):
    before = {path: path.read_bytes() for path in measured.rglob("*.*") if path.is_file()}
    with pytest.raises(FileExistsError, match=f"another measurement .*{said}.*: choose another"):
        measure_drift(BlockCodec(), corpus, measured, **{**SHORT, **change})
    assert before == {path: path.read_bytes() for path in before}


def test_another_codec_is_refused_by_name(corpus: Corpus, measured: Path):
    with pytest.raises(FileExistsError, match="codecs were block, now other"):
        measure_drift(BlockCodec(name="other"), corpus, measured, **SHORT)
    content = json.loads((measured / "drift.json").read_text())
    content["codecs"][0]["spec"]["weight_hash"] = "abc"
    content["versions"]["torch"] = "1.0"
    (measured / "drift.json").write_text(json.dumps(content))
    with pytest.raises(FileExistsError, match=r"torch was 1.0, now .*block: weight_hash was abc"):
        measure_drift(BlockCodec(), corpus, measured, **SHORT)


def test_a_corrected_licence_measures_nothing_again(
    corpus: Corpus, measured: Path, monkeypatch: pytest.MonkeyPatch
):
    codec = BlockCodec()
    codec.spec = replace(codec.spec, licence="CC0-1.0", library="mine")
    kept = sorted((measured / "clips").iterdir())
    monkeypatch.setattr(passes, "drift_of", None)  # fails if it is called
    monkeypatch.setattr(phase, "_matches", None)
    found = measure_drift(codec, corpus, measured, phase=True, **SHORT)
    assert found.drifts[0].spec["licence"] == "CC0-1.0"
    assert sorted((measured / "clips").iterdir()) == kept


def test_a_folder_of_an_earlier_version_is_compared(corpus: Corpus, measured: Path):
    """It has no protocol, shift, seed or scored passes, and was measured without them."""
    content = json.loads((measured / "drift.json").read_text())
    for name in ("protocol", "shift", "seed", "scored"):
        del content["settings"][name]
    (measured / "drift.json").write_text(json.dumps(content))
    with pytest.raises(FileExistsError, match=r"measurement \(shift was 0, now 37\)"):
        measure_drift(BlockCodec(), corpus, measured, **SHORT, shift=37)
    measure_drift(BlockCodec(), corpus, measured, **SHORT)


def test_overwriting_leaves_nothing_of_the_other_measurement(corpus: Corpus, measured: Path):
    foreign = measured / "audio" / "block" / "notes.txt"
    foreign.write_text("mine")
    (measured / "notes.txt").write_text("mine")
    found = measure_drift(BlockCodec(), corpus, measured, **{**SHORT, "passes": 2}, overwrite=True)
    assert not (measured / "phase.json").exists() and not (measured / "phase.png").exists()
    heard = read_drift_audio(measured, found.drifts, 9)
    assert [c.name for c in heard.columns] == ["original", "block pass 1", "block pass 2"]
    assert foreign.is_file() and (measured / "notes.txt").is_file()


def test_an_equal_measurement_continues_and_keeps_its_phase(corpus: Corpus, measured: Path):
    before = {name: (measured / name).read_bytes() for name in ("drift.json", "phase.json")}
    measure_drift(BlockCodec(), corpus, measured, **SHORT)
    assert before == {name: (measured / name).read_bytes() for name in before}


def test_a_folder_of_files_that_are_not_ours_is_refused(corpus: Corpus, tmp_path: Path):
    (tmp_path / "drift.csv").write_text("mine")
    with pytest.raises(FileExistsError, match=r"drift.csv .*it has no drift.json"):
        measure_drift(BlockCodec(), corpus, tmp_path, **SHORT)
    assert (tmp_path / "drift.csv").read_text() == "mine"
    (tmp_path / "drift.json").write_text("[1]")
    with pytest.raises(FileExistsError, match=r"it has no drift.json"):
        measure_drift(BlockCodec(), corpus, tmp_path, **SHORT)


def test_an_interrupted_measurement_is_known_by_its_plan(corpus: Corpus, tmp_path: Path):
    class Stops(BlockCodec):
        stops = True

        def encode_latents(self, waveform):
            if self.stops:
                raise KeyboardInterrupt
            return super().encode_latents(waveform)

    codec = Stops()
    with pytest.raises(KeyboardInterrupt):
        measure_drift(codec, corpus, tmp_path / "cut", **SHORT)
    assert json.loads((tmp_path / "cut/drift.json").read_text())["codecs"][0]["points"] == []
    with pytest.raises(FileExistsError, match="passes was 3, now 2"):
        measure_drift(codec, corpus, tmp_path / "cut", **{**SHORT, "passes": 2})
    codec.stops = False
    for name in ("cut", "whole"):
        measure_drift(codec, corpus, tmp_path / name, **SHORT)
    ends = [(tmp_path / name / "drift.json").read_text() for name in ("cut", "whole")]
    assert ends[0] == ends[1]


def test_a_folder_that_cannot_be_written_fails_before_a_codec_is_loaded(tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OSError, match="file"):
        measure_drift("no-such-codec", "no-such-corpus", tmp_path / "file" / "drift")
    with pytest.raises(OSError, match="file"):
        measure_drift("no-such-codec", "no-such-corpus", tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_a_folder_in_use_is_refused(corpus: Corpus, tmp_path: Path):
    hold = """if True:
        import sys
        from tokgen.runs.locks import lock_folder
        with lock_folder(sys.argv[1]):
            print("held", flush=True)
            sys.stdin.read()
    """
    command = [sys.executable, "-c", hold, str(tmp_path / "drift")]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, **pipes) as process:
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(BlockingIOError, match=f"is in use by process {process.pid}"):
            measure_drift(BlockCodec(), corpus, tmp_path / "drift", **SHORT)
        process.stdin.close()
    measure_drift(BlockCodec(), corpus, tmp_path / "drift", **SHORT)


def test_a_folder_that_is_deleted_meanwhile_is_named(corpus: Corpus, tmp_path: Path):
    class Deletes(BlockCodec):
        def encode_latents(self, waveform):
            shutil.rmtree(tmp_path / "drift", ignore_errors=True)
            return super().encode_latents(waveform)

    with pytest.raises(FileNotFoundError, match=r"drift.* was deleted while it was in use"):
        measure_drift(Deletes(), corpus, tmp_path / "drift", **SHORT)
