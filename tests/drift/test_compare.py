"""Drift of several codecs: files, text, paired differences."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path

import numpy as np
import pytest

from makers.audio import make_tone
from makers.codecs import BlockCodec
from makers.continuous import make_continuous
from makers.effects import Effect, late
from makers.pages import page_of, text_of
from tokgen.audio.files import write_audio
from tokgen.corpus.listed import open_corpus
from tokgen.drift.clips import DriftClips
from tokgen.drift.compare import measure_drift
from tokgen.drift.differences import difference_lines, differences
from tokgen.drift.passes import PER_CLIP, ClipDrift, DriftRun
from tokgen.metrics.delay import Delay


@pytest.fixture
def clips(tiny_corpus: Path) -> DriftClips:
    return DriftClips(open_corpus(tiny_corpus, split="test"), seconds=1.5)


def test_files_and_text(clips, tiny_codec, tmp_path):
    codecs = [Effect(lambda w: w, "as:is"), BlockCodec(), tiny_codec]
    found = measure_drift(
        codecs, clips.corpus, tmp_path, passes=3, clip_seconds=1.5, samples=1, progress=False
    )
    content = json.loads((tmp_path / "drift.json").read_text())
    assert [c["name"] for c in content["codecs"]] == ["as:is", "block", "tiny"]
    assert set(content["backends"]) >= {p["metric"] for c in content["codecs"] for p in c["points"]}
    with (tmp_path / "drift.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    (row,) = (
        r for r in rows
        if (r["codec"], r["pass"], r["metric"], r["level"]) == ("block", "3", "match_previous", "")
    )  # fmt: skip
    assert (float(row["mean"]), row["n"], row["n_failed"]) == (1.0, "2", "0")
    assert not [r for r in rows if r["metric"] == "match_previous" and r["pass"] == "1"]
    assert {r["level"] for r in rows if r["codec"] == "tiny"} == {"", "0", "1", "2", "3"}
    table = found.table()
    assert "PESQ @ 3" in table and "1.00 [1.00, 1.00]" in table and "4.64" in table
    assert "as:is: 2 clips, none failed; " in table and "4.64 [4.64, 4.64]  –" in table
    at_one = found.drifts[0].at("si_sdr", 1)  # infinite, as the output equals the original
    assert math.isnan(at_one.mean) and (at_one.n, at_one.n_failed) == (0, 0)
    assert (tmp_path / "drift.png").stat().st_size > 5000
    heard = sorted(p.name for p in (tmp_path / "audio" / "block").rglob("*.wav"))
    assert heard == ["original.wav", "pass01.wav", "pass03.wav"]


def test_differences_are_paired_over_shared_clips(clips, tmp_path):
    def made(name: str, ids: list[str], pesq: list[float], match: float | None) -> DriftRun:
        found = []
        for value in pesq:
            passes = {k: np.array([value, value / 2, value / 4]) for k in PER_CLIP}
            if match is not None:
                passes["match_previous"] = np.array([[math.nan] * 2, [0, 0], [match, match / 2]])
            found.append(ClipDrift(passes, None))
        return DriftRun(name, {}, 1.0, Delay(0, 1.0), ids, found, None, [])

    one = made("one", ["a", "b", "c", "x"], [1.0, 2.0, 4.0, 9.0], 0.8)
    two = made("two", ["c", "b", "a"], [4.5, 2.5, 1.5], 1.0)
    found = {(d.metric, d.passes): d for d in differences(one, two)}
    assert set(found) == {
        ("pesq", 1), ("pesq", 3), ("si_sdr_aligned", 1), ("si_sdr_aligned", 3),
        ("match_previous", 3),
    }  # fmt: skip
    at_one = found["pesq", 1].estimate
    assert (at_one.mean, at_one.low, at_one.high, at_one.n) == (0.5, 0.5, 0.5, 3)
    assert found["pesq", 3].estimate.mean == pytest.approx(0.125)
    assert found["match_previous", 3].estimate.mean == pytest.approx(0.15)
    (line,) = difference_lines(list(found.values()))
    assert line.startswith("two over one, paired: pesq @ 1 +0.500 [+0.500, +0.500], pesq @ 3")
    assert not [d for d in differences(one, made("w", ["a"], [1.0], None)) if "match" in d.metric]
    assert differences(one, made("other", ["z"], [1.0], None)) == []


def test_files_are_strict_json(clips, tmp_path):
    def strict(constant: str) -> None:
        raise AssertionError(constant)

    codecs = [BlockCodec(), BlockCodec(1.0, 1.0, name="other")]
    short = {"clip_seconds": 1.0, "clips": 1, "progress": False}
    measure_drift(codecs, clips.corpus, tmp_path, passes=2, phase=True, **short)
    for name in ("drift.json", "phase.json"):
        json.loads((tmp_path / name).read_text(), parse_constant=strict)
    with pytest.raises(ValueError, match="none has codes"):
        measure_drift(Effect(lambda w: w), clips.corpus, tmp_path, passes=2, phase=True)


def test_bad_arguments_are_refused(clips, tmp_path):
    with pytest.raises(ValueError, match="passes = 1: give at least 2"):
        measure_drift([BlockCodec()], clips.corpus, tmp_path, passes=1)
    with pytest.raises(ValueError, match="each once; rename a folder if two are called the same"):
        measure_drift([BlockCodec(), BlockCodec()], clips.corpus, tmp_path)
    with pytest.raises(ValueError, match="at least one"):
        measure_drift([], clips.corpus, tmp_path)
    with pytest.raises(ValueError, match="seconds = -1"):
        DriftClips(clips.corpus, seconds=-1)
    with pytest.raises(ValueError, match="n_clips = 0"):
        DriftClips(clips.corpus, n_clips=0)


def test_codecs_and_a_corpus_by_name(tiny_corpus, tiny_codec_folder, tiny_codec, tmp_path):
    short = {"split": "test", "passes": 2, "clip_seconds": 0.5, "clips": 2, "progress": False}
    one = measure_drift(str(tiny_codec_folder), str(tiny_corpus), str(tmp_path / "one"), **short)
    assert [d.name for d in one.drifts] == ["tiny"] and one.differences == []
    corpus = open_corpus(tiny_corpus)
    several = measure_drift([tiny_codec, BlockCodec()], corpus, tmp_path / "several", **short)
    assert one.drifts[0].points == several.drifts[0].points
    assert {d.codec for d in several.differences} == {"block"}
    frame = several.to_frame()
    assert set(frame["codec"]) == {"tiny", "block"} and frame["mean"].dtype == float
    assert set(frame.columns) >= {"pass", "metric", "level", "low", "high", "n", "n_failed"}
    content = json.loads((tmp_path / "several" / "drift.json").read_text())
    assert several.to_dict()["codecs"] == content["codecs"]
    assert "<td>tiny</td>" in several._repr_html_().replace(" ", "")


def test_one_clip_has_no_intervals(clips, tiny_codec, tmp_path):
    short = {"passes": 2, "clip_seconds": 1.0, "clips": 1, "progress": False}
    codecs = [tiny_codec, BlockCodec(), BlockCodec(1.0, 1.0, name="other")]
    found = measure_drift(codecs, clips.corpus, tmp_path, phase=True, **short)
    table = found.table()
    assert "tiny: 1 clip, " in table and "values of one clip; SI-SDR in dB" in table
    files = [table, found._repr_html_()]
    files += [(tmp_path / name).read_text() for name in ("drift.json", "phase.json", "drift.csv")]
    assert [text for text in files if "nan" in text.lower() or "bootstrap" in text] == []


def test_the_delay_is_said_in_samples(clips, tmp_path):
    short = {"passes": 2, "clip_seconds": 1.0, "clips": 1, "progress": False}
    codecs = [
        Effect(lambda w: late(w, 3) + 2 * late(w, 3).square()),
        Effect(lambda w: 0 * w, "mute"),
    ]
    table = measure_drift(codecs, clips.corpus, tmp_path, **short).table()
    assert "delay per pass 3 samples\n" in table and "correlation" not in table
    assert "not measurable (the output does not follow noise), taken as 0" in table


def test_mp3_is_measured_at_the_rate_of_the_corpus(tmp_path):
    folder = tmp_path / "corpus"
    write_audio(folder / "b.wav", make_tone(0.5, 0, 24000), 24000)
    (folder / "a.wav").write_bytes(b"RIFF nothing")
    short = {"passes": 2, "samples": 0, "progress": False}
    found = measure_drift(["mp3:24", "opus:12"], folder, tmp_path / "out", **short)
    assert [d.spec["sample_rate"] for d in found.drifts] == [24000, 48000]


def test_a_continuous_codec_drifts_and_resumes(clips, tiny_codec, tmp_path, monkeypatch):
    make_continuous().save_pretrained(tmp_path / "mine")
    arguments = [tiny_codec, str(tmp_path / "mine")], clips.corpus, tmp_path / "out"
    options = {"passes": 2, "clip_seconds": 1.0, "clips": 1, "shift": 7, "progress": False}
    found = measure_drift(*arguments, **options)
    name, drift = found.drifts[1].name, found.drifts[1]
    assert (name, drift.bitrate) == ("mine", 6400)
    assert drift.spec == {**make_continuous().spec.as_dict(), "name": "mine"}
    assert {p.metric for p in drift.points} == set(PER_CLIP)
    assert "mine: kbps is that of float16 latents" in found.table()
    assert found.table().count("float16") == 1
    content = json.loads((tmp_path / "out" / "drift.json").read_text())
    assert content["codecs"][1]["spec"]["latent_dim"] == 8
    assert "mine pass 2" in text_of(page_of(tmp_path / "out"))

    monkeypatch.setattr("tokgen.drift.passes.drift_of", lambda *a, **k: pytest.fail("measured"))
    again = measure_drift(*arguments, **options)
    assert again.table() == found.table()
    make_continuous(seed=1).save_pretrained(tmp_path / "mine")  # other weights
    with pytest.raises(FileExistsError, match="mine: weight_hash was"):
        measure_drift(*arguments, **options)
