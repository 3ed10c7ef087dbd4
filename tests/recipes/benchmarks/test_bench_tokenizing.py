"""The benchmark of tokenizing, on a few clips."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench_tokenizing as bench
from ceilings import Ceilings


@pytest.fixture(autouse=True)
def short_clips(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SECONDS", (0.5, 1.5))
    monkeypatch.setattr(bench, "measure_ceilings", lambda *_: Ceilings(1e11, 1e10, "x", "cpu"))


def test_it_compares_with_loops_and_checks_every_code(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "found.json"
    flags = ["--clips", "6", "--rounds", "1", "--workers", "2", "--growth", "--out", str(out)]
    assert bench.main(flags) == 0
    said = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert len(found["comparisons"]) == 2  # our own loop, and one with torch's linear layers
    for comparison in found["comparisons"].values():
        n, total = comparison["checked"].split(" codes")[0].split(" of ")
        assert int(total) > 6 * 8 * 25 and int(n) >= 0.999 * int(total)
        assert len(comparison["seconds"]["tokgen"]) == 1
    assert [line["clips"] for line in found["extra"]["growth"]] == [6, 24, 96]
    assert "FLOP/s" in said and "as fast as" in said


def test_codes_that_differ_are_noticed(tmp_path: Path) -> None:
    codec = bench.load_codec("speech-16k")
    bench.make_clips(tmp_path / "clips", 2)
    ours = bench.tokenize(codec, tmp_path / "clips", tmp_path, 1)
    ((_, encode), *_) = bench.loops(codec)
    peer = bench.loop(codec, encode, tmp_path / "clips", tmp_path)
    assert "(100.0000 %)" in bench.check(1.0, ours, peer)
    next(iter(peer.values()))[0, 0] += 1
    assert "(100.0000 %)" not in bench.check(0.9, ours, peer)
    with pytest.raises(SystemExit, match="less than 100 %"):
        bench.check(1.0, ours, peer)
    peer.popitem()
    with pytest.raises(SystemExit, match="2 clips, but the loop has 1"):
        bench.check(1.0, ours, peer)
