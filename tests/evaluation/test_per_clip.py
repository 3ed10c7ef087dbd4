"""Values of single clips: flat records, files, and what they say of failures."""

from __future__ import annotations

import csv
import json
import math

import pandas as pd
import pyarrow.parquet as pq
import pytest

from makers.audio import make_tone
from tokgen.evaluation import scorer as scoring
from tokgen.evaluation.metric import METRICS
from tokgen.evaluation.per_clip import COLUMNS, clip_values, write_clips
from tokgen.evaluation.rows import score_audio
from tokgen.metrics.tables import Metric

CLIPS = [make_tone(1.2, 0), make_tone(0.2, 1), make_tone(1.0, 2)]


class Parrot:
    backend, languages = "parrot", ("en",)

    def transcribe(self, waveform, sample_rate):
        return "one two"


@pytest.fixture
def scores(monkeypatch):
    monkeypatch.setattr(scoring, "make_recogniser", lambda name: Parrot())
    return score_audio(
        {"original": CLIPS, "decoded": [CLIPS[0], CLIPS[1], 0.5 * CLIPS[2]]},
        texts=["one two three", "two", None], ids=["a", "b/1", "ü"], sample_rate=16000,
        metrics="pesq,cer,wer,si_sdr", progress=False, workers=0,
    )  # fmt: skip


def test_every_clip_row_and_metric_has_a_record(scores):
    values = scores.clip_values()
    assert len(values) == 3 * 2 * 4 and all(list(v) == list(COLUMNS) for v in values)
    found = {(v["row"], v["clip"], v["metric"]): v for v in values}
    brief = found["decoded", "b/1", "pesq"]
    assert (brief["status"], brief["value"]) == ("failed", None)
    assert brief["reason"] == "shorter than 0.25 s, which PESQ needs"
    copy = found["original", "a", "si_sdr"]
    assert (copy["status"], copy["reason"]) == ("does not apply", "equal to the reference")
    assert found["original", "ü", "wer"]["reason"] == "no transcript"
    wer = found["decoded", "a", "wer"]
    assert (wer["value"], wer["weight"]) == (pytest.approx(1 / 3), 3)
    assert wer["transcript"] == "one two" and found["decoded", "a", "pesq"]["transcript"] is None


def test_the_weighted_mean_of_the_values_is_the_mean_of_the_table(scores):
    frame = pd.DataFrame(scores.clip_values())
    for row in scores.means.rows:
        for name, estimate in row.values.items():
            mine = frame[(frame.row == row.name) & (frame.metric == name)]
            ok = mine[mine.status == "ok"]
            assert (len(ok), (mine.status == "failed").sum()) == (estimate.n, estimate.n_failed)
            if estimate.n:
                mean = (ok.value * ok.weight).sum() / ok.weight.sum()
                assert mean == pytest.approx(estimate.mean)


def test_all_files_hold_the_same(scores, tmp_path):
    values = scores.clip_values()
    for suffix in ("json", "csv", "parquet"):
        write_clips(values, tmp_path / f"a.{suffix}")
    assert json.loads((tmp_path / "a.json").read_text()) == values
    assert pq.read_table(tmp_path / "a.parquet").to_pylist() == values
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    plain = [{k: "" if v is None else str(v) for k, v in value.items()} for value in values]
    assert lines == plain
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.csv", "a.json", "a.parquet"]
    with pytest.raises(ValueError, match=r"must end in \.json, \.csv, \.parquet"):
        write_clips(values, tmp_path / "a.txt")


def test_a_value_that_is_not_finite_without_a_reason_has_failed(monkeypatch):
    monkeypatch.setitem(METRICS, "mine", Metric("mine", "mine", None))
    records = [{"row": "r", "clip": 3, "mine": v} for v in (math.nan, math.inf, 0.0)]
    found = clip_values(records, ["mine", "fad"])
    assert [v["status"] for v in found] == ["failed", "failed", "ok"]
    assert found[0]["reason"] == "the value is not finite" and found[2]["clip"] == "3"
