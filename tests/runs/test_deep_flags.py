"""Flags for settings inside of settings that are dicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tokgen.runs.deep_flags import merged, split_deep, with_deep
from tokgen.runs.settings import parse_settings


@dataclass(frozen=True)
class Inner:
    depth: int = 2


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    model: dict[str, Any] = field(default_factory=dict)
    sizes: Mapping[str, Any] = field(default_factory=dict)
    judge: dict[str, Any] | str = ""
    steps: int = 1

    def __post_init__(self) -> None:
        if self.model.get("dim", 1) == 0:
            raise ValueError("model.dim = 0: must be at least 1")


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "default.yaml"
    path.write_text("model: {dim: 8, a: {b: 1, c: {d: 2, e: 3}}}\n")
    return path


def test_deep_flags_change_one_value_of_what_was_read(config: Path) -> None:
    argv = [
        "--model.a.c.d",
        "1e-3",
        "--steps",
        "4",
        "--model.a.new-name=[1, x]",
        "--model.dim",
        "9",
    ]
    assert parse_settings(Outer, config, argv) == Outer(
        model={"dim": 9, "a": {"b": 1, "c": {"d": 0.001, "e": 3}, "new_name": [1, "x"]}}, steps=4
    )
    argv = ["--model", "{k: {x: 1, y: 2}}", "--model.k.y", "null", "--sizes.p.q", "off"]
    found = parse_settings(Outer, config, argv)
    assert found == Outer(model={"k": {"x": 1, "y": None}}, sizes={"p": {"q": False}})
    assert parse_settings(Outer, config, ["--inner.depth", "5"]).inner == Inner(5)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--model.dim.x", "3"], "model.dim is 8, which has no setting 'x' inside"),
        (["--judge.a.b", "3"], "judge is '', which has no setting 'a' inside"),
        (["--model.a.b"], "--model.a.b has no value: give one after it"),
        (["--model.a.b", "--steps"], "--model.a.b has no value"),
        (["--model.a.b", "[1"], "--model.a.b is '\\[1', which is not YAML"),
        (["--inner.a.b", "1"], "inner"),
    ],
)
def test_wrong_deep_flags_are_refused(config: Path, argv: list[str], message: str) -> None:
    with pytest.raises(SystemExit, match=f"error: .*{message}"):
        parse_settings(Outer, config, argv)


def test_values_are_checked_and_nothing_is_changed_in_place() -> None:
    before = {"a": {"b": 1}}
    assert merged(before, {"a": {"c": 2}, "d": {}}, "model") == {"a": {"b": 1, "c": 2}, "d": {}}
    assert merged(None, {"a": 1}, "model") == {"a": 1} and before == {"a": {"b": 1}}
    assert merged({"a": None}, {"a": {"b": 1}}, "model") == {"a": {"b": 1}}
    settings = Outer(model={"dim": 1, "a": {"b": 1}})
    assert with_deep(settings, []) is settings
    assert with_deep(settings, [(["model", "a", "b"], 2)]).model == {"dim": 1, "a": {"b": 2}}
    with pytest.raises(ValueError, match=r"model\.dim = 0"):
        with_deep(settings, [(["model", "dim"], 0)])
    assert split_deep(["--", "--model.a.b", "1"], Outer) == (["--", "--model.a.b", "1"], [])
    with pytest.raises(ValueError, match=r"model\.a is 3, which has no settings inside"):
        merged({"a": 3}, {"a": {}}, "model")
