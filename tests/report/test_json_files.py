"""Tests of reading untrusted JSON files."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tokgen.report import json_files
from tokgen.report.json_files import clean, items, mapping, number, parse_json, text


def test_clean_replaces_what_a_page_cannot_show():
    assert clean({"a\x00": ["b\ud800", 1e300, math.nan, math.inf, 2, True]}) == {
        "a\ufffd": ["b\ufffd", None, None, None, 2, True]
    }


def test_types_are_checked():
    assert (mapping(None, "x"), items(None, "x"), text(None, "-"), text(3)) == ({}, [], "-", "3")
    assert number(3) == 3.0 and math.isnan(number(None))
    for check, value, message in (
        (lambda value: mapping(value, "rows"), [1], "rows: expected an object, not list"),
        (lambda value: items(value, "rows"), "x", "rows: expected an array, not str"),
        (text, {"a": 1}, "expected a string, not dict"),
        (number, True, "expected a number, not bool"),
    ):
        with pytest.raises(TypeError, match=message):
            check(value)


def test_large_and_missing_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "run" / "table.json"
    assert parse_json(path, lambda content: content) is None
    path.parent.mkdir()
    path.write_text('{"a": 1}')
    assert parse_json(path, lambda content: content) == {"a": 1}
    monkeypatch.setattr(json_files, "MAX_BYTES", 4)
    with pytest.raises(ValueError, match=r"run: table.json is damaged \(0 MB, over the limit"):
        parse_json(path, lambda content: content)
