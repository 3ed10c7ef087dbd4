"""Ctrl-C in and outside a training loop."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
import warnings

import psutil
import pytest
from accelerate import Accelerator

from makers.paths import ROOT
from makers.processes import ENVIRONMENT
from tokgen.runs import interrupts
from tokgen.runs.interrupts import Interrupt, end_with_launcher, plain_errors, run_recipe


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


def test_warnings_of_a_recipe_take_one_line(capsys, monkeypatch):
    monkeypatch.setattr(warnings, "formatwarning", warnings.formatwarning)  # restored at the end

    def warn():
        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.showwarning = shown
            warnings.warn("MOS: squim\nfailed", UserWarning, stacklevel=1)
        return 0

    def shown(message, category, filename, lineno, file=None, line=None):
        print(warnings.formatwarning(message, category, filename, lineno, line), end="")

    with pytest.raises(SystemExit, match="0"):
        run_recipe(warn)
    assert capsys.readouterr().out == "warning: MOS: squim failed\n"


def test_a_recipe_ends_with_a_checkpoint_when_its_launcher_is_killed(tmp_path):
    settings = json.dumps({"steps": 1_000_000, "log_every": 1000})
    script = ROOT / "tests" / "makers" / "training.py"
    paths = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
    launcher = subprocess.Popen(
        [sys.executable, "-m", "accelerate.commands.launch", script, tmp_path, settings, "ddp"],
        env=os.environ | ENVIRONMENT | {"PYTHONPATH": paths},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    checkpoints = tmp_path / "checkpoints"
    while not list(checkpoints.glob("step-*")):
        assert launcher.poll() is None
        time.sleep(0.05)
    (recipe,) = psutil.Process(launcher.pid).children()
    launcher.kill()
    launcher.wait()
    newest = max(int(p.name[5:]) for p in checkpoints.glob("step-*"))
    psutil.wait_procs([recipe], timeout=60)
    assert not recipe.is_running() or recipe.status() == psutil.STATUS_ZOMBIE
    assert max(int(p.name[5:]) for p in checkpoints.glob("step-*")) > newest


def test_without_a_launcher_nothing_is_watched(monkeypatch):
    for name in ("ACCELERATE_MIXED_PRECISION", "TORCHELASTIC_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(interrupts, "_watched", False)
    before = threading.active_count()
    end_with_launcher()
    assert threading.active_count() == before


@pytest.mark.parametrize("error", [OSError("a: no space\nis left"), FloatingPointError("a: nan")])
def test_errors_of_a_recipe_take_one_line(error, tmp_path, monkeypatch):
    def failing():
        raise error

    with pytest.raises(SystemExit) as found:
        run_recipe(failing)
    message = found.value.code
    assert message.startswith("error: a: n") and "\n" not in message
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(tmp_path / "error.json"))
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(SystemExit) as found:
        run_recipe(failing)
    assert found.value.code == 1  # the first process prints it
    told = json.loads((tmp_path / "error.json").read_text())["message"]
    assert told["message"] == told["extraInfo"]["py_callstack"] == message


def test_wrong_settings_take_one_line():
    with pytest.raises(SystemExit, match=r"^error: steps = 0: must be at least 1$"), plain_errors():
        raise ValueError("steps = 0:\nmust be at least 1")
