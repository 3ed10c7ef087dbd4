"""Run folders, checkpoints that survive kills, and interrupts."""

import signal

import pytest
import torch
from accelerate import Accelerator

from tokgen.runs.accelerator import step_seed
from tokgen.runs.checkpoints import Checkpoints
from tokgen.runs.folder import append_history, clear_results, read_history
from tokgen.runs.interrupts import Interrupt, run_recipe


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


def test_ctrl_c_is_a_flag_in_the_loop_only():
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


def test_ctrl_c_outside_the_loop_prints_how_to_continue(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit, match="130"):
        run_recipe(interrupted)
    assert "run the same command again" in capsys.readouterr().err
    with pytest.raises(SystemExit, match="0"):
        run_recipe(lambda: 0)


def test_clearing_results_deletes_only_the_named_files_of_a_run(tmp_path):
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
