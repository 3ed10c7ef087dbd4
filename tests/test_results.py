"""Results: the same numbers as text, HTML, JSON values and a data frame."""

from __future__ import annotations

import json
import math
import sys

import pytest

from tokgen.corpus.entries import Rejection
from tokgen.results import Grid, Result, align, printable, to_json


class Two(Result):
    """Two values, the second of which failed."""

    def parts(self):
        grid = [["name", "value"], ["a <b>", "1.00"], ["long  name", "-"]]
        return [Grid(grid, "a title"), "", "a note & more"]

    def records(self):
        return [{"name": "a", "mean": 1.0, "n": 3}, {"name": "b", "mean": math.nan, "n": 0}]

    def to_dict(self):
        return {"values": [1.0, None]}


def test_text_is_what_print_shows():
    assert Two().table() == str(Two())
    assert Two().table().splitlines() == [
        "a title",
        "name       value",
        "a <b>      1.00",
        "long name  -",
        "",
        "a note & more",
    ]


def test_html_is_escaped():
    page = Two()._repr_html_()
    assert "a &lt;b&gt;" in page and "<b>" not in page
    assert "a note &amp; more" in page and "<h4>a title</h4>" in page
    assert page.count("<tr>") == 3 and page.count("<p>") == 1


def test_a_frame_has_numbers_as_numbers():
    frame = Two().to_frame()
    assert list(frame.columns) == ["name", "mean", "n"]
    assert frame["mean"].dtype == float and math.isnan(frame["mean"][1])
    assert frame["n"].tolist() == [3, 0]


def test_without_pandas_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(ModuleNotFoundError, match="pip install pandas"):
        Two().to_frame()


def test_json_has_null_for_what_is_not_finite():
    content = {"a": [1.5, math.nan, (math.inf,)], "b": {"c": -math.inf}}
    assert json.loads(to_json(content)) == {"a": [1.5, None, [None]], "b": {"c": None}}


def test_columns_are_aligned():
    assert align([["a", "b"], ["long  name", "2.00"]]) == "a          b\nlong name  2.00"


def test_cells_of_html_are_not_padded():
    assert " </t" not in Two()._repr_html_()


def test_characters_that_control_a_terminal_are_escaped():
    assert printable("naïve 音 👩‍🚀 می‌خواهم") == "naïve 音 👩‍🚀 می‌خواهم"
    assert printable("a\x1b[31m\n\x9b\udcff\u202egpj.wav") == r"a\x1b[31m\n\x9b\udcff\u202egpj.wav"
    assert printable("two\nlines\r", keep="\n") == "two\nlines\\r"
    assert align([["a\x1b[2J", "b"]]) == r"a\x1b[2J  b"


def test_rejections_print_without_escape_bytes():
    rejection = Rejection("bad\x1b]0;title\x07.wav", "not\naudio")
    assert str(rejection) == r"bad\x1b]0;title\x07.wav: not\naudio"
