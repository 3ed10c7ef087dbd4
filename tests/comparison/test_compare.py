"""Rows, paired differences, verdicts and files of a comparison."""

from __future__ import annotations

import csv
import io
import json
import math

import numpy as np
import pytest

from tokgen.comparison.compare import RowData, accuracy_records, compare
from tokgen.metrics.failures import Failure
from tokgen.metrics.statistics import bootstrap_mean, bootstrap_ratio
from tokgen.metrics.table_files import to_latex, to_markdown, write_table
from tokgen.metrics.tables import Table

BACKENDS = {"pesq": "pesq (wideband)", "cer": "parrot"}
RNG = np.random.default_rng(0)
BASE = RNG.normal(2.0, 0.5, 20)


def records(pesq, edits=3) -> list[dict]:
    counts = accuracy_records(np.full((20, 2), 5.0), np.tile([10.0, 20.0], (20, 1)))
    return [
        {"row": "r", "pesq": float(p), "edits": edits, "chars": 10 + i, **c}
        for i, (p, c) in enumerate(zip(pesq, counts, strict=True))
    ]


def plain(rows: list[dict]) -> list[dict]:
    """Remove token accuracy, which only rows with a model have."""
    return [{k: v for k, v in r.items() if not k.startswith(("hits", "hidden"))} for r in rows]


ORIGINAL = RowData("original", "original", None, [plain(records(np.full(20, 4.6), 0))])
BITRATE = {"bitrate": bootstrap_mean([4.0])}
FIRST = RowData("a generated", "generated", "a", [records(BASE)], BITRATE)
SECOND = RowData(
    "b generated", "generated", "b", [records(BASE - 0.03 + 0.01 * RNG.normal(size=20), 2)]
)
SYNTHESES = [
    RowData("a resynthesis", "resynthesis", "a", [plain(records(BASE + 1))]),
    RowData("b resynthesis", "resynthesis", "b", [plain(records(BASE + 0.5))]),
]
FLOOR = RowData(
    "a unconditional", "generated", "a", [plain(records(np.full(20, 1.0)))], unconditional=True
)
SPAN = BASE.mean() + 1 - 1.0  # of "a resynthesis" over the floor


@pytest.fixture(scope="module")
def found():
    margins = {"pesq": 0.05}
    rows = [ORIGINAL, *SYNTHESES, FLOOR, FIRST, SECOND]
    return compare(rows, BACKENDS, margins=margins, drift_passes=7, notes=["n_1: 20 clips & more"])


def test_rows_hold_means_and_pooled_ratios(found) -> None:
    by_name = {row.name: row for row in found.rows}
    assert list(by_name) == [r.name for r in (ORIGINAL, *SYNTHESES, FLOOR, FIRST, SECOND)]
    assert by_name["a generated"].values["pesq"] == bootstrap_mean(BASE)
    chars = [10 + i for i in range(20)]
    assert by_name["b generated"].values["cer"] == bootstrap_ratio([2] * 20, chars)
    assert by_name["a generated"].values["accuracy"].mean == pytest.approx(1 / 3)
    assert by_name["a generated"].values["accuracy_level0"].mean == pytest.approx(1 / 2)
    assert "accuracy" not in by_name["a resynthesis"].values
    assert by_name["a generated"].values["bitrate"].mean == 4.0
    assert [m.name for m in found.metrics] == [
        "pesq", "cer", "accuracy", "accuracy_level0", "accuracy_level1", "bitrate",
    ]  # fmt: skip


def test_differences_are_paired_within_a_kind_and_against_the_first(found) -> None:
    pairs = {(d.row, d.than, d.metric): d for d in found.differences}
    one = pairs["b generated", "a generated", "pesq"]
    changes = zip(BASE, SECOND.records[0], strict=True)
    expected = bootstrap_mean([record["pesq"] - base for base, record in changes])
    assert one.estimate.mean == pytest.approx(expected.mean)
    assert one.estimate.low == pytest.approx(expected.low, abs=1e-9)
    assert one.verdict == "no worse" and one.margin == pytest.approx(0.05 * SPAN)
    assert pairs["b resynthesis", "a resynthesis", "pesq"].verdict == "worse"
    cer = pairs["b generated", "a generated", "cer"]
    assert cer.estimate.mean == pytest.approx(-20 / sum(10 + i for i in range(20)))
    assert cer.verdict == "better" and cer.margin is None
    assert not any(d.than == "original" or d.row == "original" for d in found.differences)
    assert {d.than.split()[1] for d in found.differences} == {"generated", "resynthesis"}
    assert {d.row.split()[1] for d in found.differences} == {"generated", "resynthesis"}


def test_the_margin_of_pesq_is_a_share_of_the_span(found) -> None:
    note = f"margin of PESQ: {0.05 * SPAN:.3f}, 5 % of 1.00 (a unconditional) to "
    assert any(line.startswith(note) for line in found.notes)
    tight = compare([*SYNTHESES, FLOOR, FIRST, SECOND], BACKENDS, margins={"pesq": 0.001})
    verdict = next(d.verdict for d in tight.differences if d.row == "b generated")
    assert verdict == "worse"
    assert f"{0.05 * SPAN:.3g}" in found.table()


@pytest.mark.parametrize(
    ("rows", "why"),
    [
        ([*SYNTHESES, FIRST, SECOND], "no unconditional row"),
        ([FLOOR, FIRST, SECOND], "no resynthesis row"),
        (
            [RowData("a resynthesis", "resynthesis", "a", FLOOR.records), FLOOR, FIRST, SECOND],
            "resynthesis is not above unconditional",
        ),
        (
            [*SYNTHESES, RowData("u", "generated", "a", [plain(records(BASE * math.nan))],
                                 unconditional=True), FIRST, SECOND],
            "resynthesis is not above unconditional",
        ),
    ],
)  # fmt: skip
def test_without_a_span_pesq_has_no_verdict(rows, why) -> None:
    found = compare(rows, BACKENDS, margins={"pesq": 0.1, "cer": 0.01})
    pesq = next(d for d in found.differences if (d.row, d.metric) == ("b generated", "pesq"))
    assert (pesq.verdict, pesq.margin) == (f"no verdict: {why}", None)
    assert any(note.startswith("PESQ has no verdict") and why in note for note in found.notes)
    cer = next(d for d in found.differences if (d.row, d.metric) == ("b generated", "cer"))
    assert cer.verdict == "better"
    assert Table.from_dict(json.loads(json.dumps(found.to_dict()))).differences[0].verdict
    without = compare(rows, BACKENDS, margins={})
    assert not any(d.verdict.startswith("no verdict") for d in without.differences)


def test_seeds_widen_the_interval() -> None:
    def rows(shifts):
        return [RowData("a generated", "generated", "a", [records(BASE + s) for s in shifts])]

    one = compare(rows([0.0]), BACKENDS).rows[0].values["pesq"]
    several = compare(rows([-0.6, 0.0, 0.6]), BACKENDS).rows[0].values["pesq"]
    assert several.mean == pytest.approx(one.mean)
    assert several.high - several.low > 1.5 * (one.high - one.low)
    assert several.n == 20


def test_failures_are_counted() -> None:
    values = BASE.copy()
    values[3] = math.nan
    data = [RowData("a generated", "generated", "a", [records(values)]),
            RowData("b generated", "generated", "b", [records(BASE + math.nan)])]  # fmt: skip
    found = compare(data, BACKENDS)
    assert (found.rows[0].values["pesq"].n, found.rows[0].values["pesq"].n_failed) == (19, 1)
    assert (found.rows[1].values["pesq"].n, found.rows[1].values["pesq"].n_failed) == (0, 20)
    lost = next(d for d in found.differences if d.metric == "pesq")
    assert (lost.estimate.n_failed, lost.verdict) == (20, "undecided")
    for text in (found.table(), to_markdown(found).replace("\\", ""), to_latex(found)):
        assert "failed in a generated: pesq 1" in text
        assert "failed in b generated: pesq 20" in text
        assert "n = 19 to 20" in text and "no worse: its bad end" in text


def test_clips_that_a_metric_does_not_apply_to_are_no_failures() -> None:
    def rows(values, **reasons):
        found = records(values)
        found[0] |= {"edits": math.nan, "chars": math.nan, "id": "x", **reasons}
        return found

    silent = {"failures": {"pesq": "no utterance"}}
    wordless = {"not_applicable": {"cer": "no transcript"}}
    values = BASE.copy()
    values[0] = math.nan
    data = [RowData("a generated", "generated", "a", [rows(values, **silent, **wordless)]),
            RowData("b generated", "generated", "b", [rows(BASE, **wordless)])]  # fmt: skip
    found = compare(data, BACKENDS)
    assert [(r.values["cer"].n, r.values["cer"].n_failed) for r in found.rows] == [(19, 0)] * 2
    cer = next(d for d in found.differences if d.metric == "cer")
    assert (cer.estimate.n, cer.estimate.n_failed) == (19, 0)
    assert found.failures == [Failure("x", "a generated", "pesq", "no utterance")]
    assert "CER does not apply to 1 of 20 clips: no transcript" in found.notes
    for text in (found.table(), to_markdown(found).replace("\\", ""), to_latex(found)):
        assert "pesq of x in a generated: no utterance" in text


def test_originals_that_the_recogniser_does_not_hear_warn() -> None:
    lost = RowData("original", "original", None, [plain(records(BASE, 15))])
    with pytest.warns(UserWarning, match=r"CER of the originals is 0\..*language"):
        found = compare([lost], BACKENDS)
    assert "State the language" in found.notes[-1]


def test_token_accuracy_is_compared_without_a_verdict(found) -> None:
    accuracy = [d for d in found.differences if d.metric.startswith("accuracy")]
    assert len(accuracy) == 3 and {d.verdict for d in accuracy} == {""}
    with pytest.raises(ValueError, match=r"margins of \['accuracy'\]: judged are mos, pesq, cer"):
        compare([FIRST], BACKENDS, margins={"accuracy": 0.1})


def test_drift_is_paired_like_any_metric() -> None:
    def row(name, worth):
        more = [{**r, "drift_pesq": float(worth)} for r in plain(records(BASE))]
        return RowData(f"{name} resynthesis", "resynthesis", name, [more])

    found = compare([row("a", 1.1), row("b", 2.5)], BACKENDS, margins={"drift_pesq": 0.2},
                    drift_passes=7)  # fmt: skip
    metric = next(m for m in found.metrics if m.name == "drift_pesq")
    assert metric.label == "PESQ @ 7" and "pesq" in metric.backend
    drift = next(d for d in found.differences if d.metric == "drift_pesq")
    assert drift.estimate.mean == pytest.approx(1.4) and drift.verdict == "better"


@pytest.mark.parametrize(
    ("rows", "margins", "message"),
    [
        ([FIRST], {"polqa": 0.1}, r"margins of \['polqa'\]: judged are mos, pesq, cer"),
        ([FIRST], {"pesq": -0.1}, "margin of pesq = -0.1: must be at least 0"),
        ([FIRST], {"pesq": 1.1}, "margin of pesq = 1.1: a share of its span, so at most 1"),
        ([FIRST, RowData("b generated", "generated", "b", [records(BASE)[:5]])], {},
         "unequal clips"),
        ([FIRST, RowData("b generated", "generated", "b", [records(BASE)] * 2)], {},
         "a generated has 1 seeds and b generated 2"),
    ],
)  # fmt: skip
def test_bad_arguments_are_refused(rows, margins, message) -> None:
    with pytest.raises(ValueError, match=message):
        compare(rows, BACKENDS, margins=margins)


def test_files_hold_the_same_numbers(found, tmp_path) -> None:
    write_table(found, tmp_path)
    names = {"table.json", "table.csv", "table.md", "table.tex"}
    assert {path.name for path in tmp_path.iterdir()} == names
    content = json.loads((tmp_path / "table.json").read_text())
    assert content["rows"][4]["values"]["pesq"]["mean"] == pytest.approx(BASE.mean())
    assert content["rows"][0]["codec"] is None and content["notes"][0] == "n_1: 20 clips & more"
    assert content["metrics"][0]["backend"] == "pesq (wideband)"
    assert content["metrics"][3]["detail"] and not content["metrics"][2]["detail"]
    assert {"row", "than", "metric", "mean", "low", "high", "n", "n_failed", "margin",
            "verdict"} == set(content["differences"][0])  # fmt: skip
    lines = list(csv.DictReader(io.StringIO((tmp_path / "table.csv").read_text())))
    line = next(
        x for x in lines if (x["row"], x["metric"], x["than"]) == ("a generated", "pesq", "")
    )
    assert float(line["mean"]) == pytest.approx(BASE.mean(), rel=1e-5) and line["n"] == "20"
    verdicts = [x["verdict"] for x in lines if x["than"]]
    assert "no worse" in verdicts and len(verdicts) == len(found.differences)
    cell = f"{BASE.mean():.2f} ["
    for name in ("table.md", "table.tex"):
        assert cell in (tmp_path / name).read_text()
    assert cell in found.table() and "token accuracy by level" in found.table()
