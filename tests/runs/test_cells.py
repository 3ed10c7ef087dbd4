"""Cells that several processes share."""

from __future__ import annotations

import subprocess
import sys

from tokgen.runs import cells
from tokgen.runs.cells import share
from tokgen.runs.locks import lock_folder


def test_a_cell_of_another_process_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(cells, "POLL_SECONDS", 0.1)
    hold = (
        "import sys, time; from tokgen.runs.locks import lock_folder\n"
        "with lock_folder(sys.argv[1]):\n print('held', flush=True); sys.stdin.read()"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path / "busy.job"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert other.stdout.readline() == "held\n"
    order = []

    def job(name):
        def do():
            order.append(name)
            if name == "free":
                other.stdin.close()  # the other process ends
                other.wait()
            return True

        return tmp_path / name, do

    assert share("cells", {name: job(name) for name in ("busy", "free")})
    assert order == ["free", "busy"]


def test_an_interrupted_job_ends_the_work(tmp_path):
    done = []
    jobs = {
        name: (tmp_path / name, lambda name=name: done.append(name) or name != "b")
        for name in ("a", "b", "c")
    }
    assert not share("cells", jobs) and done == ["a", "b"]


def test_a_locked_folder_is_waited_for(tmp_path):
    with lock_folder(tmp_path / "x"):
        hold = (
            "import sys; from tokgen.runs import cells\n"
            "cells.POLL_SECONDS = 0.1\n"
            "print('begins', flush=True)\n"
            "with cells.locked(sys.argv[1]): print('held')"
        )
        other = subprocess.Popen(
            [sys.executable, "-c", hold, tmp_path / "x"], stdout=subprocess.PIPE, text=True
        )
        assert other.stdout.readline() == "begins\n" and other.poll() is None
    assert other.communicate(timeout=60)[0] == "held\n"
