"""Metrics by name: their facts, missing packages, and scores in several processes."""

from __future__ import annotations

import math
import re
import sys

import pytest
import torch

from makers.paths import ROOT
from makers.speech import five_clips
from tokgen.evaluation.metric import BACKENDS, LIMITS, METRICS, OF_ROWS, SOURCES
from tokgen.evaluation.rows import score_audio
from tokgen.evaluation.scorer import Scorer
from tokgen.evaluation.settings import MetricSettings
from tokgen.metrics.cer import edits

NEW = ("stoi", "mel", "visqol", "dnsmos", "plcmos")


def test_every_metric_has_its_facts():
    assert set(SOURCES) == set(METRICS) and set(LIMITS) - {"drift_pesq"} <= set(METRICS)
    assert all(metric.better for metric in METRICS.values())
    guide = (ROOT / "docs/guides/score.md").read_text()
    named = {
        name.strip("` ")
        for line in guide.splitlines()
        if line.startswith("| `")
        for name in line.split("|")[1].split(",")
    }
    assert set(METRICS) <= named
    rows = re.findall(r"^\| (`[^|]+) \|[^|]+\| ([^|]+) \| (?:higher|lower) \|", guide, re.MULTILINE)
    ranges = {name: ends for names, ends in rows for name in re.findall(r"`(\w+)`", names)}
    assert ranges == {
        name: _in_words(*LIMITS[name]) if name in LIMITS else metric.unit
        for name, metric in METRICS.items()
    }
    for name in (*METRICS, *(n for names in BACKENDS.values() for n in names if n != "auto")):
        assert name in MetricSettings.__doc__.replace("\n", " "), name


def _in_words(low: float, high: float) -> str:
    return f"from {low:g}" if high == math.inf else f"{low:g} to {high:g}"


def test_workers_change_nothing_and_failures_have_reasons():
    pairs = [(a[:, :16000], b[:, :16000]) for a, b in five_clips()[:2]]
    clean, noisy = ([pair[i] for pair in pairs] for i in (0, 1))
    rows = {"original": clean, "noisy": [noisy[0], noisy[1] * math.nan]}
    options = {"sample_rate": 16000, "metrics": NEW, "progress": False}
    alone, several = (score_audio(rows, workers=n, **options) for n in (0, 2))
    for one, other in zip(alone.per_clip, several.per_clip, strict=True):
        assert one.get("failures") == other.get("failures")
        for name in NEW:
            assert one[name] == pytest.approx(other[name], abs=1e-5, nan_ok=True)
    row = alone.means.rows[1]
    assert all((e.n, e.n_failed) == (1, 1) for e in row.values.values())
    told = {f.metric: f.reason for f in alone.means.failures if f.row == "noisy"}
    assert told == dict.fromkeys(NEW, "NaN or infinite samples")
    assert "speechmos" in alone.table() and "pystoi" in alone.table()


@pytest.mark.parametrize(
    ("metric", "package", "extra"),
    [("stoi", "pystoi", "eval"), ("visqol", "visqol", "quality"),
     ("plcmos", "speechmos", "quality"), ("nisqa", "librosa", "nisqa")],
)  # fmt: skip
def test_a_missing_package_names_the_extra(metric, package, extra, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'tokgen\[{extra}\]'"):
        Scorer((metric,))


def test_a_distance_of_rows_has_no_values_of_clips():
    clean, noisy = zip(*five_clips(), strict=True)
    rows = {"original": clean, "noisy": [*noisy[:4], torch.zeros_like(noisy[4])]}
    found = score_audio(
        rows, sample_rate=16000, metrics="fad,si_sdr", fad="resemblyzer", progress=False, workers=0
    )
    own, other = (row.values["fad"] for row in found.means.rows)
    assert own.mean == pytest.approx(0, abs=1e-9) and own.n == 5
    assert other.mean > 0.05 and (other.n, other.n_failed) == (4, 1) and math.isnan(other.low)
    assert [f.reason for f in found.means.failures if f.metric == "fad"] == ["silent"]
    assert {v["metric"] for v in found.clip_values()} == {"si_sdr"} and OF_ROWS == ("fad",)
    assert any("FAD of" in note and "which are few" in note for note in found.means.notes)
    assert "resemblyzer" in found.table()


def test_recognisers_of_several_languages_are_told_the_language(monkeypatch):
    from tokgen.evaluation import scorer as scoring

    class Polyglot:
        backend, languages = "polyglot", ("en", "de", "zh")

        def transcribe(self, waveform, sample_rate, language=None):
            return {"de": "drei Hunde", "Chinese": "你好", None: "3 dogs"}[language]

    monkeypatch.setattr(scoring, "make_recogniser", lambda name: Polyglot())
    clip = five_clips()[2][0]
    found = score_audio(
        {"original": [clip] * 4}, texts=["3 Hunde", "三", "three dogs", "buon giorno"],
        language=["de", "Chinese", None, "it"], sample_rate=16000, metrics="cer,wer",
        progress=False, workers=0,
    )  # fmt: skip
    records = found.per_clip
    assert (records[0]["edits"], records[0]["word_edits"]) == (0, 0)
    assert records[1]["edits"] == edits("三", "你好", None, "zh").n_edits == 2
    assert records[1]["not_applicable"] == {"wer": "Chinese does not separate words"}
    assert records[2]["edits"] == 0
    reason = "the recogniser knows en, de, zh, but the language is it"
    assert records[3]["not_applicable"] == {"cer": reason, "wer": reason}
    assert not found.means.failures
