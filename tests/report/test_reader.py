"""Tests of reading run folders, whole, partial and damaged."""

from __future__ import annotations

import copy
import json
import math
import os
import shutil
from pathlib import Path

import pytest

from makers.pages import page_of, text_of
from makers.runs import RATE, add_drift_audio, estimate, make_drift, put
from tokgen.cli import main as cli
from tokgen.drift.differences import DriftDifference
from tokgen.drift.phase import Correlation, PhaseSummary
from tokgen.drift.summary import DriftSummary, Point
from tokgen.metrics.statistics import Estimate
from tokgen.report.reader import read_run


def test_summaries_round_trip():
    known, unknown = Estimate(1.5, 1.0, 2.0, 8, 1), Estimate(math.nan, math.nan, math.nan, 0, 8)
    points = [Point("x", 1, "pesq", None, known), Point("x", 2, "pesq", 3, unknown)]
    summary = DriftSummary("x", {"sample_rate": 16000}, 4e3, "0", 0, 8, 9, points, ["a: b"])
    again = DriftSummary.from_dict(json.loads(json.dumps(summary.as_dict())))
    assert repr(again) == repr(summary)
    phase = PhaseSummary("x", [-4, 4], [-0.25, 0.25], [known, known], known, [known])
    assert PhaseSummary.from_dict(json.loads(json.dumps(phase.as_dict()))) == phase
    correlation = Correlation([("x", 0.1, 2.0)], 25, 0.5, 0.1, 0.7)
    assert Correlation.from_dict(json.loads(json.dumps(vars(correlation)))) == correlation
    difference = DriftDifference("x", "y", 2, "pesq", known)
    assert DriftDifference.from_dict(json.loads(json.dumps(difference.as_dict()))) == difference
    with pytest.raises(ValueError, match="1 matches for 2 shifts"):
        PhaseSummary.from_dict({"name": "x", "shifts_ms": [1, 2], "match": [vars(known)]})


def test_read_run(plain_run: Path):
    found = read_run(plain_run, n_clips=2)
    assert [row.kind for row in found.table.rows] == ["original", "resynthesis", "generated"]
    assert found.table.rows[2].values["pesq"] == Estimate(1.25, 1.15, 1.35, 16, 2)
    assert math.isnan(found.table.rows[2].values["si_sdr"].mean)
    assert set(found.histories) == {"log mel", "mfcc"}
    assert len(found.listenings[0].clips) == 2 and found.listenings[0].n_clips_found == 3
    assert found.telephone.curves[0].points[7][0] == 8
    assert found.documents["settings.json"]["codec"]["weight_hash"] == "8dcc74f1"


def test_metrics_json_becomes_a_table(tmp_path: Path):
    values = {"cer": {**estimate(0.03, 0.01), "backend": "moonshine"}, "pesq": estimate(1.5)}
    rows = {"generated": values, "original": values, "unconditional": values}
    put(tmp_path / "r" / "metrics.json", {"rows": rows, "codec": "speech-16k", "steps": 3})
    table = read_run(tmp_path / "r").table
    assert [(r.name, r.kind) for r in table.rows][::2] == [
        ("original", "original"),
        ("unconditional", "generated"),
    ]
    assert [(m.label, m.better, m.digits) for m in table.metrics] == [
        ("CER", "lower", 3),
        ("PESQ", "higher", 2),
    ]
    assert "CER moonshine" in text_of(page_of(tmp_path / "r"))


def test_histories_are_ordered_by_time(run: Path):
    for i, name in enumerate(("mfcc", "log mel")):
        path = run / "cells" / name / "history.jsonl"
        os.utime(path, (1000 + i, 1000 + i))
    assert list(read_run(run).histories) == ["mfcc", "log mel"]


def test_run_with_a_drift_folder(run: Path):
    make_drift(run / "drift")
    add_drift_audio(run / "drift", {"speech-16k": RATE})
    found = read_run(run)
    assert [listening.title for listening in found.listenings] == ["Samples", "Drift passes"]
    assert found.phase is not None and found.drift is not None


@pytest.mark.parametrize(
    ("prepare", "said"),
    [
        (lambda folder: shutil.rmtree(folder), "no such folder; give the folder of a run"),
        (lambda folder: (folder / "settings.json").unlink(), "is no run: expected at least one of"),
        (lambda folder: None, "holds nothing to show"),
        (lambda folder: (folder / "table.json").write_text('{"rows": ['), "table.json is damaged"),
        (lambda folder: (folder / "table.json").write_bytes(b"\xff\xfe{"), "table.json is damaged"),
        (lambda folder: (folder / "table.json").write_text("[1]"), "expected an object, not list"),
        (lambda folder: (folder / "table.json").write_text("[" * 10**5), "table.json is damaged"),
        (
            lambda folder: put(folder / "drift.json", {"codecs": [{"points": []}]}),
            "no value 'name'",
        ),
        (lambda folder: (folder / "history.jsonl").write_bytes(b"\xff\n"), "history.jsonl is dam"),
        (
            lambda folder: put(folder / "samples/index.json", {"columns": 3}),
            "columns: expected an array, not int",
        ),
    ],
)
def test_folders_that_are_not_runs(prepare, said, tmp_path: Path, capsys):
    folder = tmp_path / "some run"
    put(folder / "settings.json", {"settings": {"steps": 3}})
    prepare(folder)
    assert cli.main(["report", str(folder), "--out", str(tmp_path / "x.html")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error:") and said in error and "some run" in error
    assert not (tmp_path / "x.html").exists()


def places(value, path=()):
    """All paths to values inside a JSON value."""
    yield path
    inner = (
        value.items()
        if isinstance(value, dict)
        else enumerate(value)
        if isinstance(value, list)
        else ()
    )
    for key, child in inner:
        yield from places(child, (*path, key))


@pytest.mark.parametrize(
    ("name", "wrong", "said"),
    [
        ("notes", "one note", "notes: expected an array, not str"),
        ("metrics", {}, "metrics: expected an array, not dict"),
        ("rows", ["a"], "rows: expected an object, not str"),
        ("differences", [{"margin": "inf"}], "expected a number, not str"),
    ],
)
def test_a_damaged_table_names_the_part(name: str, wrong, said: str, run: Path):
    content = json.loads((run / "table.json").read_text())
    put(run / "table.json", {**content, name: wrong})
    with pytest.raises(ValueError, match=rf"table.json is damaged \({said}"):
        read_run(run)


def test_missing_values_of_a_table_are_read_as_unknown(run: Path):
    content = json.loads((run / "table.json").read_text())
    content["rows"][0]["values"] = None
    content["rows"][1]["values"]["pesq"] = None
    put(run / "table.json", content)
    rows = {row.name: row for row in read_run(run).table.rows}
    assert rows[content["rows"][0]["name"]].values == {}
    assert math.isnan(rows[content["rows"][1]["name"]].values["pesq"].mean)


@pytest.mark.parametrize("name", ["table.json", "samples/index.json", "telephone/telephone.json"])
def test_wrong_values_are_read_or_refused(name: str, run: Path):
    good = json.loads((run / name).read_text())
    tried = 0
    for place in list(places(good))[1::3]:
        for wrong in (None, True, "x", -(10**400), [], {}, [[]], "\ud800\x00"):
            content = copy.deepcopy(good)
            at = content
            for key in place[:-1]:
                at = at[key]
            at[place[-1]] = wrong
            put(run / name, content)
            try:
                read_run(run)
            except ValueError as error:
                assert "is damaged" in str(error) and Path(name).name in str(error)
            tried += 1
    assert tried > 50
