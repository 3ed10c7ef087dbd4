"""Tables of results: reading, number format, and escaping in every file format."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import replace

import pytest

from tokgen.metrics.failures import Failure
from tokgen.metrics.statistics import Estimate, format_estimate, format_number
from tokgen.metrics.table_files import to_csv, to_latex, to_markdown
from tokgen.metrics.tables import Difference, Metric, Row, Table

KNOWN = Estimate(1.25, 1.15, 1.35, 16, 2)
UNKNOWN = Estimate(math.nan, math.nan, math.nan, 0, 18)
PESQ = Metric("pesq", "PESQ", "higher", backend="pesq (P.862.2)")
SPEED = Metric("bitrate", "bitrate", None, "kbps", backend="tokgen")
TABLE = Table(
    [PESQ, SPEED],
    [
        Row("original", "original", None, {"pesq": KNOWN}),
        Row("a resynthesis", "resynthesis", "a", {"pesq": KNOWN, "bitrate": KNOWN}),
        Row("a generated", "generated", "a", {"pesq": KNOWN}),
    ],
    [Difference("a generated", "a resynthesis", "pesq", KNOWN, 0.1, "better")],
    ["a note"],
)


def through_json(content):
    return json.loads(json.dumps(content, allow_nan=False))


def test_a_table_is_read_back_as_it_was_written():
    assert Table.from_dict(through_json(TABLE.to_dict())) == TABLE
    lost = replace(TABLE, rows=[Row("x", "generated", None, {"pesq": UNKNOWN})], differences=[])
    again = Table.from_dict(through_json(lost.to_dict()))
    assert math.isnan(again.rows[0].values["pesq"].mean)
    assert again.rows[0].values["pesq"].n_failed == 18


def test_the_form_of_metrics_json_is_read_with_known_metrics():
    content = {"rows": TABLE.rows_as_dict(), "codec": "a", "steps": 3}
    content["rows"] = {"unconditional": content["rows"]["a generated"], **content["rows"]}
    found = Table.from_dict(through_json(content), {"pesq": replace(PESQ, backend="")})
    assert found.metrics == [PESQ, Metric("bitrate", "bitrate", None, digits=3, backend="tokgen")]
    assert [(row.name, row.kind, row.codec) for row in found.rows] == [
        ("original", "original", None),
        ("unconditional", "generated", "a"),
        ("a resynthesis", "generated", "a"),
        ("a generated", "generated", "a"),
    ]
    assert found.rows[1].values == {"pesq": KNOWN}


@pytest.mark.parametrize(
    "change",
    [
        {"rows": 3},
        {"rows": [{"name": "x"}]},
        {"rows": [{"name": ["x"], "values": {}}]},
        {"rows": [{"name": "x", "values": {"pesq": {"mean": True}}}]},
        {"rows": {"x": {"pesq": 3}}},
        {"metrics": [{"label": "PESQ"}]},
        {"metrics": [{"name": "pesq", "digits": "many"}]},
        {"differences": [{"row": "x"}]},
        {"notes": [{}]},
        {"failures": ["x"]},
        {"failures": [{"clip": "a", "row": "x", "metric": "pesq", "reason": []}]},
    ],
)
def test_damaged_content_is_refused(change):
    with pytest.raises((KeyError, TypeError, ValueError, AttributeError)):
        Table.from_dict({**through_json(TABLE.to_dict()), **change})


def test_numbers_have_one_format():
    assert format_estimate(KNOWN, 2) == "1.25 [1.15, 1.35]"
    assert format_estimate(Estimate(-1.0, -2.0, 0.5, 3, 0), 1, sign=True) == "-1.0 [-2.0, +0.5]"
    assert format_estimate(Estimate(4.0, math.nan, math.nan, 1, 0), 2) == "4.00"
    assert format_estimate(UNKNOWN, 2) == format_estimate(None, 2) == "–"
    assert format_number(math.nan, 2) == format_number(math.inf, 2) == ""


def test_text_tells_counts_of_clips_failures_and_backends():
    more = replace(TABLE, rows=[*TABLE.rows, Row("b", "generated", "b", {"pesq": UNKNOWN})])
    text = more.table()
    assert "n = 16" in text and "failed in b: pesq 18" in text
    assert "PESQ: pesq (P.862.2)" in text and "bitrate (kbps)" in text
    assert "+1.25 [+1.15, +1.35]  16 (2 failed)" in text


def test_failures_are_kept_in_json_and_the_first_are_shown():
    failures = [Failure(f"clip {i}", row, "pesq", "no utterance") for row in "ab" for i in range(7)]
    failures += [Failure("x", "b", "mos", f"reason {i}") for i in range(6)]
    table = replace(TABLE, failures=failures)
    assert (
        "  pesq of clip 0, clip 1, clip 2 and 4 more in a, b: no utterance\n"
        "  mos of x in b: reason 0\n"
    ) in table.table()
    assert "reason 3\n  and 2 failures for other reasons\n  the JSON form lists" in table.table()
    assert Table.from_dict(through_json(table.to_dict())) == table
    assert table.to_dict()["failures"][0] == {
        "clip": "clip 0", "row": "a", "metric": "pesq", "reason": "no utterance"
    }  # fmt: skip
    content = {"rows": TABLE.rows_as_dict(), "codec": "a", "failures": table.failures_as_dict()}
    assert Table.from_dict(through_json({**content, "notes": ["x"]})).failures == failures
    assert Table.from_dict(through_json({**content, "notes": ["x"]})).notes == ["x"]


def test_names_are_escaped_in_every_format():
    name = 'a_b|c & <b>$x$ [y](z) 50% #1 "q", `r`\nnew\\line{}'
    found = Table([PESQ], [Row(name, "generated", name, {"pesq": KNOWN})], notes=[name])
    markdown = to_markdown(found).splitlines()
    cells = [c for c in markdown[2].replace("\\|", "").strip("|").split("|")]
    assert len(cells) == markdown[0].strip("|").count("|") + 1
    assert r"\<b\>" in markdown[2] and r"\[y\](z)" in markdown[2]
    latex = to_latex(found)
    row_line = next(x.strip() for x in latex.splitlines() if x.strip().startswith(r"a\_b"))
    assert r"\& \ensuremath{<}b\ensuremath{>}\$x\$" in row_line and r"50\% \#1" in row_line
    assert r"\textbackslash{}line\{\}" in row_line and row_line.endswith(r"\\")
    assert r"\toprule" in latex and r"\midrule" in latex and r"\begin{tabular}{lr}" in latex
    assert latex.count("\n%") >= 3  # a note with a line break stays one comment
    assert next(csv.DictReader(io.StringIO(to_csv(found))))["row"] == name


def test_a_frame_has_one_row_for_each_estimate_and_difference():
    frame = TABLE.to_frame()
    assert list(frame.columns) == next(csv.reader(io.StringIO(to_csv(TABLE))))
    assert frame["metric"].tolist() == ["pesq", "pesq", "bitrate", "pesq", "pesq"]
    assert frame["than"].tolist() == ["", "", "", "", "a resynthesis"]
    assert frame["mean"].tolist() == [1.25] * 5 and frame["n_failed"].tolist() == [2] * 5
    assert frame["margin"].tolist()[-1] == 0.1 and frame["verdict"].tolist()[-1] == "better"
    lost = replace(TABLE, rows=[Row("x", "generated", None, {"pesq": UNKNOWN})], differences=[])
    assert math.isnan(lost.to_frame()["mean"][0])


def test_a_notebook_shows_the_tables_escaped():
    page = replace(TABLE, notes=["<script>"])._repr_html_()
    assert page.count("<table>") == 2 and "paired differences" in page
    assert "&lt;script&gt;" in page and "<script>" not in page
