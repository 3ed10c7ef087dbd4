"""Run folders: settings from YAML and flags, checkpoints that survive kills, claims."""

import signal
from dataclasses import dataclass, field

import pytest
import torch
from accelerate import Accelerator

from tokgen.runs import folder as runs
from tokgen.runs.folder import append_history, clear_results, read_history
from tokgen.runs.accelerator import step_seed
from tokgen.runs.interrupts import Interrupt, run_recipe
from tokgen.runs.checkpoints import Checkpoints
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


def test_a_named_config_replaces_the_default_and_flags_win(tmp_path):
    default, config = tmp_path / "default.yaml", tmp_path / "other.yaml"
    default.write_text("steps: 20\ninner: {depth: 3}\nextra: {a: 1}\n")
    config.write_text("steps: 30\n")
    assert parse_settings(Outer, default, []) == Outer(Inner(3), 20, {"a": 1})
    argv = ["--config", str(config), "--inner.depth", "6", "--rates", "[4]"]
    assert parse_settings(Outer, default, argv) == Outer(Inner(6), 30, {}, (4,))


def test_unknown_setting_is_refused(tmp_path, capsys):
    default = tmp_path / "default.yaml"
    default.write_text("steps: 20\n")
    with pytest.raises(SystemExit):
        parse_settings(Outer, default, ["--stepz", "3"])
    assert "stepz" in capsys.readouterr().err


def test_claim_refuses_other_settings_but_free_ones(tmp_path):
    claim_run(tmp_path, Outer())
    save_settings(tmp_path, Outer(), codec="x")
    claim_run(tmp_path, Outer())
    claim_run(tmp_path, Outer(steps=11), free=("steps",))
    with pytest.raises(SystemExit, match="steps = 10, not 11"):
        claim_run(tmp_path, Outer(steps=11))


def test_history_drops_the_line_that_a_kill_cut(tmp_path):
    path = tmp_path / "history.jsonl"
    append = append_history(path, [{"step": 1, "loss": 2.0}])
    append({"step": 2, "loss": 1.5})
    path.write_text(path.read_text() + '{"step": 3, "lo')
    assert read_history(path) == [{"step": 1, "loss": 2.0}, {"step": 2, "loss": 1.5}]


def test_step_seeds_differ_and_repeat():
    seeds = {step_seed(0, step, part) for step in range(50) for part in range(4)}
    assert len(seeds) == 200
    assert step_seed(3, 4) == step_seed(3, 4)
    torch.Generator().manual_seed(step_seed(3, 4))


def test_checkpoints_keep_the_newest_and_survive_a_half_written_one(tmp_path):
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(torch.nn.Linear(2, 2))
    checkpoints = Checkpoints(tmp_path, keep=2)
    assert checkpoints.resume(accelerator) == (0, {})
    for step in (1, 2, 3):
        torch.nn.init.constant_(model.weight, float(step))
        checkpoints.save(accelerator, step, {"seen": step})
    (tmp_path / "partial-4").mkdir()
    (tmp_path / "partial-4" / "model.safetensors").write_text("half")
    assert checkpoints.steps() == [2, 3]
    torch.nn.init.zeros_(model.weight)
    assert checkpoints.resume(accelerator) == (3, {"seen": 3})
    assert model.weight.eq(3).all()


def test_ctrl_c_is_a_flag_in_the_loop_and_itself_again_afterwards():
    accelerator = Accelerator(cpu=True)
    before = signal.getsignal(signal.SIGINT)
    interrupt = Interrupt()
    try:
        assert not interrupt.agreed(accelerator)
        signal.raise_signal(signal.SIGINT)
        assert interrupt.agreed(accelerator)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    finally:
        interrupt.release()
    assert signal.getsignal(signal.SIGINT) is before


def test_ctrl_c_outside_the_loop_says_how_to_go_on(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="130"):
        run_recipe(interrupted)
    assert "the same command goes on" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        run_recipe(lambda: 0)


def test_clearing_results_takes_what_is_named_from_a_run_alone(tmp_path):
    for name in ("table.json", "cells/a/model", "drift/clips/0", "drift/audio/x.wav", "own.txt"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    names = ("table.json", "drift/audio", "absent", "absent/too")
    clear_results(tmp_path, names)
    assert (tmp_path / "table.json").is_file()  # without settings.json this is no run
    (tmp_path / "settings.json").write_text("{}")
    clear_results(tmp_path, names)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file()}
    assert left == {"settings.json", "cells/a/model", "drift/clips/0", "own.txt"}


def test_a_claim_names_the_nested_value_and_a_damaged_file(tmp_path):
    save_settings(tmp_path, Outer(), codec={"weight_hash": "abc"})
    claim_run(tmp_path, Outer(), codec={"weight_hash": "abc"})
    with pytest.raises(SystemExit, match=r"codec.weight_hash = 'abc', not 'xyz'"):
        claim_run(tmp_path, Outer(), codec={"weight_hash": "xyz"})
    with pytest.raises(SystemExit, match="processes = None, not 2"):
        claim_run(tmp_path, Outer(), processes=2)
    (tmp_path / "settings.json").write_text("{")
    with pytest.raises(SystemExit, match=r"settings.json cannot be read .*: delete"):
        claim_run(tmp_path, Outer())


@pytest.mark.parametrize(
    ("given", "read"),
    [
        (["--codec", "a", "--x", "1", "--codec=b"], ["--x", "1", "--codec", '["a", "b"]']),
        (["--codec", '["a"]'], ["--codec", '["a"]']),
        (["--x"], ["--x"]),
        (["--codec"], ["--codec"]),
    ],
)
def test_a_flag_that_is_given_several_times(given, read):
    assert runs._gather(given, "--codec") == read
