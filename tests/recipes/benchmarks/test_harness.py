"""Timing two contenders in turn, and measuring their memory."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest
import torch

import harness
from harness import Contender, PairedTimes, Peak, alternate, measure, write_report


def make_times(**how) -> PairedTimes:
    seconds = {"ours": [1.0, 2.0, 1.0], "the loop": [2.2, 5.0, 2.31]}
    peaks = {"ours": Peak(200_000_000, 50_000_000, 7), "the loop": Peak(300_000_000, 0, 9)}
    return PairedTimes("ours", "the loop", seconds, peaks, **how)


def test_the_ratio_is_the_median_over_rounds():
    found = make_times()
    assert found.ratio == pytest.approx(2.31)
    assert found.ratios == pytest.approx([2.2, 2.5, 2.31])
    assert found.medians == {"ours": 1.0, "the loop": 2.31}


def test_table():
    head, ours, loop, ratio, checked = make_times(checked="same").table().splitlines()
    assert head.split() == ["contender", "median", "s", "min-max", "peak", "MB", "grown"]
    assert ours.split() == ["ours", "1.000", "1.000-2.000", "200", "50"]
    assert loop.split() == ["the", "loop", "2.310", "2.200-5.000", "300", "0"]
    assert ratio == (
        "ours is 2.31x [2.20, 2.50] as fast as the loop (median and range of 3 rounds)"
    )
    assert checked == "check: same"
    head, ours, *_ = make_times(device="cuda").table().splitlines()
    assert head.split()[-2:] == ["GPU", "MB"] and ours.split()[-3:] == ["200", "50", "0"]


def test_turns_alternate_and_the_first_results_are_checked():
    turns: list[str] = []

    def job(name: str):
        return lambda: turns.append(name) or f"{name}{turns.count(name)}"

    checks = []
    found = alternate(
        Contender("a", job("a")),
        Contender("b", job("b")),
        rounds=3,
        warmup=1,
        check=lambda ours, peer: checks.append((ours, peer)) or "equal",
    )
    assert turns == list("abbaabba")
    assert checks == [("a1", "b1")]
    assert found.checked == "equal"
    assert {name: len(values) for name, values in found.seconds.items()} == {"a": 3, "b": 3}


def test_wall_time_is_measured(monkeypatch):
    assert measure(lambda: time.sleep(0.05))[0] >= 0.05
    now = [0.0]

    def job(seconds: float):
        def run():
            now[0] += seconds

        return run

    clock = SimpleNamespace(perf_counter=lambda: now[0], monotonic=time.monotonic)
    monkeypatch.setattr(harness, "time", clock)
    found = alternate(Contender("quick", job(0.5)), Contender("slow", job(2.0)), rounds=2)
    assert found.seconds == {"quick": [0.5, 0.5], "slow": [2.0, 2.0]}
    assert found.ratio == 4.0


MEASURE = """
import json, os, subprocess, sys, time
import harness

sampled = []  # process ids
resident = harness._resident

def noted(process):
    found = resident(process)
    sampled.append(process.pid)
    return found

def wait_for_samples(pid):
    # Wait for two samples: the first may have begun before the call.
    seen, deadline = sampled.count(pid), time.monotonic() + 120
    while sampled.count(pid) < seen + 2:
        assert time.monotonic() < deadline, "the memory is not sampled"
        time.sleep(0.01)

def here():
    block = bytearray(b"x" * 100_000_000)
    wait_for_samples(os.getpid())

def there():
    code = "block = bytearray(b'x' * 100_000_000); print('ready', flush=True); input()"
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout.readline().strip() == b"ready"
        wait_for_samples(child.pid)
        child.communicate(b"\\n")

harness._resident = noted
print(json.dumps([vars(harness.measure(job)[1]) for job in (here, there)]))
"""


def test_memory_of_a_run_and_of_its_children():
    """Measures in a new process: this one has freed memory to reuse, and other children."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", MEASURE], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    for peak in json.loads(done.stdout):
        assert 90e6 < peak["grown"] < 400e6
        assert peak["resident"] > peak["grown"]
        assert peak["device"] == 0


def test_a_job_that_fails_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        measure(lambda: 1 / 0)


def test_report(tmp_path, capsys):
    write_report(tmp_path / "x.json", "tokenizing", {"200 clips": make_times()}, {"roofline": "r"})
    printed = capsys.readouterr().out
    assert "200 clips" in printed and "2.31x" in printed and "roofline: r" in printed
    written = json.loads((tmp_path / "x.json").read_text())
    assert written["machine"]["torch"] == torch.__version__
    assert written["extra"] == {"roofline": "r"}
    found = written["comparisons"]["200 clips"]
    assert found["ratio"] == {"median": 2.31, "low": 2.2, "high": 2.5}
    assert found["peak_bytes"]["ours"] == {
        "resident": 200_000_000,
        "grown": 50_000_000,
        "device": 7,
    }
    write_report(None, "again", [make_times()])
    assert "ours and the loop" in capsys.readouterr().out


def test_settings_that_cannot_be():
    a = Contender("a", lambda: None)
    with pytest.raises(ValueError, match="rounds = 0"):
        alternate(a, Contender("b", a.run), rounds=0)
    with pytest.raises(ValueError, match="both contenders are called 'a'"):
        alternate(a, a)
