from __future__ import annotations

import json
import subprocess
import sys
import time

import pytest
import torch

from harness import Comparison, Contender, Peak, alternate, measure, write_report


def comparison(**how) -> Comparison:
    seconds = {"ours": [1.0, 2.0, 1.0], "the loop": [2.2, 5.0, 2.31]}
    peaks = {"ours": Peak(200_000_000, 50_000_000, 7), "the loop": Peak(300_000_000, 0, 9)}
    return Comparison("ours", "the loop", seconds, peaks, **how)


def test_the_ratio_is_the_median_over_rounds():
    found = comparison()
    assert found.ratio == pytest.approx(2.31)
    assert (found.ratio_low, found.ratio_high) == pytest.approx((2.2, 2.5))
    assert found.medians == {"ours": 1.0, "the loop": 2.31}


def test_memory_is_that_of_the_device():
    assert comparison().peak_bytes == {"ours": 200_000_000, "the loop": 300_000_000}
    assert comparison(device="cuda").peak_bytes == {"ours": 7, "the loop": 9}


def test_table():
    head, ours, loop, ratio, checked = comparison(checked="same").table().splitlines()
    assert head.split() == ["contender", "median", "s", "min-max", "peak", "MB", "grown"]
    assert ours.split() == ["ours", "1.000", "1.000-2.000", "200", "50"]
    assert loop.split() == ["the", "loop", "2.310", "2.200-5.000", "300", "0"]
    assert ratio == (
        "ours is 2.31x [2.20, 2.50] as fast as the loop (median and range of 3 rounds)"
    )
    assert checked == "check: same"


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


def test_wall_time_is_measured():
    found = alternate(
        Contender("quick", lambda: time.sleep(0.01)),
        Contender("slow", lambda: time.sleep(0.05)),
        rounds=2,
        warmup=0,
    )
    assert min(found.seconds["slow"]) >= 0.05
    assert found.ratio > 1.5


def test_memory_of_a_run_and_of_its_children():
    def here():
        block = torch.ones(25_000_000)  # 100 MB
        time.sleep(0.1)
        return block.sum().item()

    def there():
        code = "import time; block = bytearray(b'x' * 100_000_000); time.sleep(0.8)"
        subprocess.run([sys.executable, "-c", code], check=True)

    for job in (here, there):
        peak = measure(job)[1]
        assert 90e6 < peak.grown < 400e6
        assert peak.resident > peak.grown
        assert peak.device == 0


def test_a_job_that_fails_is_not_swallowed():
    with pytest.raises(ZeroDivisionError):
        measure(lambda: 1 / 0)


def test_report(tmp_path, capsys):
    write_report(tmp_path / "x.json", "tokenizing", {"200 clips": comparison()}, {"roofline": "r"})
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
    write_report(None, "again", [comparison()])
    assert "ours and the loop" in capsys.readouterr().out


def test_settings_that_cannot_be():
    a = Contender("a", lambda: None)
    with pytest.raises(ValueError, match="rounds = 0"):
        alternate(a, Contender("b", a.run), rounds=0)
    with pytest.raises(ValueError, match="both contenders are called 'a'"):
        alternate(a, a)
