"""recipes/compare_codecs.py on tiny codecs, killed and resumed."""

from __future__ import annotations

import csv
import json
import signal
from pathlib import Path

import pytest

import compare_codecs
from makers.audio import make_tone
from makers.codecs import make_stft_codec, save_codec
from makers.recipes import TINY_MODEL, kill_when, launch, run
from tokgen.audio.files import write_audio

SPEEDS = ("training_speed", "sampling_speed")


@pytest.fixture
def flags(tiny_codec_folder, tiny_corpus, tmp_path):
    other = save_codec(make_stft_codec(1, "other"), tmp_path / "zoo" / "other")

    def make(name: str, **more: object) -> list[object]:
        settings = {
            "name": name, "runs": tmp_path, "corpus": tiny_corpus, "steps": 6, "batch_size": 2,
            "crop_seconds": 0.5, "checkpoint_every": 2, "log_every": 1, "validate_every": 6,
            "mixed_precision": "no", "sampling.steps": "[2,1]", "generation_batch": 1,
            "metrics": '["pesq", "cer", "speaker", "f0"]', "asr": "moonshine",
            "speaker": "resemblyzer", "seeds": 2, "drift_passes": 2, "telephone.rounds": 2,
            "telephone.n_clips": 2, "telephone.gap_seconds": 0.3,
            "margins": '{"pesq": 0.1, "cer": 0.02}', **more,
        }  # fmt: skip
        codecs = ["--codec", tiny_codec_folder, f"--codec={other}"]
        return [*(x for k, v in settings.items() for x in (f"--{k}", v)), *TINY_MODEL, *codecs]

    return make


def table_of(folder: Path) -> dict:
    """Read table.json without speeds."""
    table = json.loads((folder / "table.json").read_text())
    for row in table["rows"]:
        for name in SPEEDS:
            row["values"].pop(name, None)
    return table


def test_a_run_that_is_killed_twice_ends_with_the_same_table(flags, tmp_path) -> None:
    out = run("compare_codecs.py", *flags("whole"))
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    for ready in (
        lambda: (cut / "cells/other-seed0/checkpoints/step-2").is_dir(),  # in a training
        lambda: any((cut / "scores").glob("tiny_resynthesis-*.jsonl")),  # while scoring
    ):
        process = launch("compare_codecs.py", *flags("cut"))
        kill_when(process, ready)
        assert process.returncode == -signal.SIGKILL
        assert not (cut / "table.json").exists()
    again = run("compare_codecs.py", *flags("cut"))
    assert "continuing at step 6 of 6" in again
    assert table_of(whole) == table_of(cut)
    for name in ("telephone/telephone.json", "drift/drift.json"):
        assert json.loads((whole / name).read_text()) == json.loads((cut / name).read_text())

    table = json.loads((whole / "table.json").read_text())
    rows = {row["name"]: row for row in table["rows"]}
    assert list(rows) == [
        "original", "tiny resynthesis", "other resynthesis", "tiny unconditional",
        "tiny generated", "other generated",
    ]  # fmt: skip
    measured = {"pesq", "cer", "speaker", "f0", "accuracy", "bitrate", *SPEEDS}
    measured |= {f"accuracy_level{k}" for k in range(4)}
    assert set(rows["tiny generated"]["values"]) == measured
    drift = json.loads((whole / "drift/drift.json").read_text())["codecs"][0]["points"]
    last = next(p for p in drift if (p["metric"], p["pass"]) == ("pesq", 2))
    assert rows["tiny resynthesis"]["values"]["drift_pesq"]["mean"] == last["mean"]
    assert rows["original"]["values"]["pesq"]["mean"] == pytest.approx(4.644, abs=1e-3)
    pairs = {(d["row"], d["metric"]): d for d in table["differences"]}
    assert pairs["other generated", "cer"]["margin"] == 0.02
    assert pairs["other generated", "accuracy"]["than"] == "tiny generated"
    assert pairs["other resynthesis", "drift_pesq"]["n"] == 2
    assert "other generated" in out and "verdict" in out and "2 trainings per codec" in out
    index = json.loads((whole / "samples/index.json").read_text())
    assert [c["name"] for c in index["columns"]][-2:] == [
        "tiny after 2 edits", "other after 2 edits",
    ]  # fmt: skip
    assert all((whole / "samples" / f).is_file() for f in index["clips"][0]["files"].values())
    assert "booktabs" in (whole / "table.tex").read_text()
    assert "| other generated |" in (whole / "table.md").read_text()
    with (whole / "table.csv").open() as file:
        assert {line["kind"] for line in csv.DictReader(file)} == {
            "original", "resynthesis", "generated",
        }  # fmt: skip

    # More seeds and another margin reuse the results; other settings are refused.
    more = run("compare_codecs.py", *flags("cut", seeds=3, margins='{"pesq": 0.5}'))
    assert "tiny, masked, seed 2" in more and more.count("continuing at step 6 of 6") == 4
    assert (cut / "cells/tiny-seed2/model/config.json").is_file()
    fewer = run("compare_codecs.py", *flags("cut", **{"drift_passes": 0, "telephone.rounds": 0}))
    assert "2 trainings per codec" in fewer
    left = {path.name for path in (cut / "drift").iterdir()}
    assert left == {"clips"} and not (cut / "telephone/telephone.json").exists()
    table = json.loads((cut / "table.json").read_text())
    assert not any(m["name"] == "drift_pesq" for m in table["metrics"])
    wrong = run("compare_codecs.py", *flags("cut", steps=7), code=1)
    assert "holds a run with steps = 6, not 7" in wrong and "Traceback" not in wrong


def test_ctrl_c_in_a_training_leaves_a_checkpoint(flags, tmp_path) -> None:
    more = {"steps": 2000, "checkpoint_every": 5, "seeds": 1}
    process = launch("compare_codecs.py", *flags("cut", **more))
    cell = tmp_path / "cut/cells/tiny-seed0"
    out = kill_when(process, lambda: (cell / "checkpoints/step-5").is_dir(), signal.SIGINT)
    assert process.returncode == 130, out
    assert out.count("run the same command again to continue") == 1 and "Traceback" not in out
    assert not (cell / "model").exists()


def test_continuation_without_any_conditioning(flags, tmp_path) -> None:
    more = {
        "conditioning": "none", "task.name": "continue", "task.prompt_seconds": 0.5, "seeds": 1,
        "drift_passes": 0, "telephone.rounds": 0, "metrics": '["pesq"]',
        "margins": '{"mos": 0.1, "drift_pesq": 0.1}',
    }  # fmt: skip
    out = run("compare_codecs.py", *flags("go_on", **more))
    assert "including the kept parts" in out
    config = json.loads((tmp_path / "go_on/cells/tiny-seed0/model/config.json").read_text())
    assert config["conditioning_dim"] == 0
    assert not (tmp_path / "go_on/drift").exists()
    assert not (tmp_path / "go_on/telephone").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"seeds": 0}, "seeds is 0, but must be at least 1"),
        ({"conditioning": "none"}, "conditioning 'none' with task 'vocode'"),
        ({"conditioning": "mel"}, "conditioning is 'mel', but must be one of mfcc, log_mel, none"),
        ({"drift_passes": 1}, "drift_passes = 1: give 2 or more"),
        ({"metrics": '["polqa"]'}, r"metrics \['polqa'\]: known are"),
        ({"metrics": '["pesq", "pesq"]'}, "give each once"),
        ({"margins": '{"polqa": 0.1}'}, r"margins of \['polqa'\]: judged are mos, pesq, cer"),
        ({"margins": '{"accuracy": 0.1}'}, r"margins of \['accuracy'\]: judged are"),
        ({"margins": '{"pesq": -1}'}, "margin of pesq = -1"),
        ({"task.name": "edit"}, "task.name is 'edit', but must be one of vocode, continue, infill"),
        ({"telephone.n_clips": 0}, "n_clips = 0"),
        ({"schedule": "linear"}, "schedule is 'linear', but must be one of constant, cosine"),
        ({"steps": 0}, "steps is 0, but must be at least 1"),
        ({"log_every": 0}, "log_every is 0"),
        ({"crop_seconds": 0}, "crop_seconds is 0"),
        ({"conditioning_dropout": 2}, "conditioning_dropout is 2"),
        ({"generation_batch": 0}, "generation_batch is 0, but must be at least 1"),
        ({"n_test": -1}, "n_test is -1, but must be at least 1"),
        ({"model.preset": "huge"}, "preset 'huge': known are small, paper"),
        ({"mixed_precision": "fp17"}, "must be one of auto, no, bf16, fp16"),
        ({"tracker": "nope"}, "nope"),
    ],
)
def test_wrong_settings_are_refused_before_any_work(more, message, flags, tmp_path) -> None:
    with pytest.raises(SystemExit, match=message):
        compare_codecs.main([str(flag) for flag in flags("wrong", **more)])
    assert not (tmp_path / "wrong").exists()


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"min_test_seconds": 99}, "no test utterance of .* n_test = 2, min_test_seconds = 99"),
        (
            {"corpus": "without_test"},
            "without_test has no test split, and only 2 clips in",
        ),
        ({"corpus": "without_text"}, "without_text has no transcripts for cer"),
    ],
)
def test_corpora_are_checked_before_they_are_tokenized(more, message, flags, tmp_path) -> None:
    for name, split in (("without_test", "train"), ("without_text", "test")):
        (tmp_path / name).mkdir()
        for i in range(2):
            write_audio(tmp_path / name / f"{i}.wav", make_tone(1.0, i), 16000)
        lines = ["file_name,split", "0.wav,train", f"1.wav,{split}"]
        (tmp_path / name / "metadata.csv").write_text("\n".join(lines))
    if "corpus" in more:
        more = {"corpus": tmp_path / more["corpus"]}
    words = {"n_test": 2, "metrics": "cer", **more}
    with pytest.raises(SystemExit, match=message):
        compare_codecs.main([str(flag) for flag in flags("early", **words)])
    assert not (tmp_path / "tokens").exists() and not (tmp_path / "early").exists()


def test_unknown_and_repeated_codecs_are_refused(flags, tiny_codec_folder) -> None:
    out = run("compare_codecs.py", *flags("x"), "--codec", "nowhere", code=1)
    assert "error: no codec 'nowhere'" in out and "Traceback" not in out
    out = run("compare_codecs.py", *flags("x"), "--codec", tiny_codec_folder, code=1)
    assert "give at least one, and each once" in out
    out = run("compare_codecs.py", *flags("x", **{"task.levels": 9}), code=1)
    assert "levels = 9: tiny has 4" in out and "Traceback" not in out


def test_two_processes_share_the_work(flags, tmp_path) -> None:
    more = {"seeds": 1, "metrics": '["pesq"]', "margins": "{}", "telephone.rounds": 1}
    out = run("compare_codecs.py", *flags("two", **more), processes=2)
    assert "6 steps of 4 x 0.5 s" in out
    speed = json.loads((tmp_path / "two/cells/tiny-seed0/training.json").read_text())
    assert speed["processes"] == 2 and speed["steps"] == 6
    assert table_of(tmp_path / "two")["rows"][3]["values"]["pesq"]["n"] == 2
    again = run("compare_codecs.py", *flags("two", **more), code=1)
    assert "holds a run with processes = 2, not 1" in again and "Traceback" not in again
