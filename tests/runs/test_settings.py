"""Settings from YAML and flags, and the settings that a run was started with."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tokgen.codec.identity import unclaimed
from tokgen.codec.spec import CodecSpec
from tokgen.runs.flags import plain_flags
from tokgen.runs.settings import claim_run, parse_settings, save_settings


@dataclass(frozen=True)
class Inner:
    depth: int = 2
    name: str | None = None


@dataclass(frozen=True)
class Outer:
    inner: Inner = field(default_factory=Inner)
    steps: int = 10
    extra: dict = field(default_factory=dict)
    rates: tuple[int, ...] = (1, 2)
    codec: list[str] = field(default_factory=list)
    batch_size: int = 4
    phase: bool = False


def test_a_named_config_replaces_the_default_and_flags_win(tmp_path: Path) -> None:
    default, config = tmp_path / "default.yaml", tmp_path / "other.yaml"
    default.write_text("steps: 20\ninner: {depth: 3}\nextra: {a: 1}\n")
    config.write_text("steps: 30\n")
    assert parse_settings(Outer, default, []) == Outer(Inner(3), 20, {"a": 1})
    argv = ["--config", str(config), "--inner.depth", "6", "--rates", "[4]"]
    assert parse_settings(Outer, default, argv) == Outer(Inner(6), 30, {}, (4,))


def test_flags_with_dashes_repeated_flags_and_switches(tmp_path: Path) -> None:
    default = tmp_path / "default.yaml"
    default.write_text("codec: [x]\n")
    argv = ["--batch-size", "8", "--codec", "a", "--codec=b", "--phase"]
    assert parse_settings(Outer, default, argv) == Outer(codec=["a", "b"], batch_size=8, phase=True)
    assert parse_settings(Outer, default, ["--phase", "false"]) == Outer(codec=["x"])
    for word in ("true", "True", "YES", "on"):
        assert parse_settings(Outer, default, ["--phase", word]).phase
    for word in ("False", "no", "OFF"):
        assert not parse_settings(Outer, default, ["--phase", word]).phase


def test_help_names_the_file_of_the_defaults(tmp_path: Path, capsys) -> None:
    default = tmp_path / "default.yaml"
    default.write_text("steps: 20\n")
    with pytest.raises(SystemExit):
        parse_settings(Outer, default, ["--help"])
    shown = capsys.readouterr().out
    assert "defaults:\n  from " in shown and default.name in shown
    assert "overridden" not in shown and "(default: 20)" in shown


def test_unknown_setting_is_refused(tmp_path: Path) -> None:
    default = tmp_path / "default.yaml"
    default.write_text("steps: 20\n")
    with pytest.raises(SystemExit, match=r"error: .*--stepz") as exit_:
        parse_settings(Outer, default, ["--stepz", "3"])
    assert "\n" not in str(exit_.value)
    for argv, message in (
        (["--steps", "many"], "error: steps is 'many', but must be a whole number; see --help"),
        (
            ["--inner.depth", "deep"],
            "error: inner.depth is 'deep', but must be a whole number; see --help",
        ),
        (["--steps", "3", "--steps=4"], "error: --steps is given twice, but takes one value"),
    ):
        with pytest.raises(SystemExit) as exit_:
            parse_settings(Outer, default, argv)
        assert str(exit_.value) == message


@pytest.mark.parametrize(
    ("given", "plain"),
    [
        (["--codec", "a", "--x", "1", "--codec=b"], ["--x", "1", "--codec", '["a", "b"]']),
        (["--codec", '["a"]'], ["--codec", '["a"]']),
        (["--x"], ["--x"]),
        (["--codec"], ["--codec"]),
        (["--codec", "--x"], ["--codec", "--x"]),
        (["--batch-size", "8-9"], ["--batch_size", "8-9"]),
        (["--batch-size=--a-b", "-1"], ["--batch_size=--a-b", "-1"]),
        (["--phase", "a-b", "--phase=false"], ["--phase=true", "a-b", "--phase=false"]),
        (["--codec", "a", "--", "--b-c"], ["--codec", '["a"]', "--", "--b-c"]),
    ],
)
def test_flags_are_rewritten(given: list[str], plain: list[str]) -> None:
    assert plain_flags(given, Outer) == plain


def test_claim_refuses_other_settings_but_free_ones(tmp_path: Path) -> None:
    claim_run(tmp_path, Outer())
    save_settings(tmp_path, Outer(), codec="x")
    claim_run(tmp_path, Outer())
    claim_run(tmp_path, Outer(steps=11), free=("steps",))
    with pytest.raises(ValueError, match="steps = 10, not 11"):
        claim_run(tmp_path, Outer(steps=11))


def test_a_claim_leaves_out_what_only_describes_a_codec(tmp_path: Path) -> None:
    spec = CodecSpec("a", 16000, 320, 4, 60, "abc", licence="wrong", encoder_hash="de")
    save_settings(tmp_path, Outer(), codec=spec.as_dict())
    for now in (replace(spec, name="b", licence="CC0-1.0"), replace(spec, encoder_hash="")):
        claim_run(tmp_path, Outer(), free=unclaimed(now, "codec"), codec=now.as_dict())
        with pytest.raises(ValueError, match="holds a run with codec"):
            claim_run(tmp_path, Outer(), codec=now.as_dict())
    for other in ({"weight_hash": "xyz"}, {"n_codebooks": 2}):
        now = replace(spec, **other)
        with pytest.raises(ValueError, match=rf"codec\.{next(iter(other))} = "):
            claim_run(tmp_path, Outer(), free=unclaimed(now, "codec"), codec=now.as_dict())


def test_a_claim_names_the_nested_value_and_a_damaged_file(tmp_path: Path) -> None:
    save_settings(tmp_path, Outer(), codec={"weight_hash": "abc"})
    claim_run(tmp_path, Outer(), codec={"weight_hash": "abc"})
    with pytest.raises(ValueError, match=r"codec.weight_hash = 'abc', not 'xyz'"):
        claim_run(tmp_path, Outer(), codec={"weight_hash": "xyz"})
    with pytest.raises(ValueError, match="processes = None, not 2"):
        claim_run(tmp_path, Outer(), processes=2)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(ValueError, match=r"settings.json cannot be read .*: delete"):
        claim_run(tmp_path, Outer())
