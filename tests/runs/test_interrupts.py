"""Ctrl-C in and outside a training loop."""

from __future__ import annotations

import signal
import warnings

import pytest
from accelerate import Accelerator

from tokgen.runs.interrupts import Interrupt, run_recipe


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
