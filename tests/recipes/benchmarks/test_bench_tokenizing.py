"""The benchmark of tokenizing, on a few clips."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from makers.recipes import ROOT


@pytest.fixture(scope="module")
def bench():
    path = ROOT / "recipes" / "benchmarks" / "bench_tokenizing.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.SECONDS = (0.5, 1.5)
    return module


def test_it_compares_with_loops_and_checks_every_code(
    bench, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    out = tmp_path / "found.json"
    flags = ["--clips", "6", "--rounds", "1", "--workers", "2", "--growth", "--out", str(out)]
    assert bench.main(flags) == 0
    said = capsys.readouterr().out
    found = json.loads(out.read_text())
    assert len(found["comparisons"]) == 2  # its own loop, and that with torch's linear layers
    for comparison in found["comparisons"].values():
        n, total = comparison["checked"].split(" codes")[0].split(" of ")
        assert int(total) > 6 * 8 * 25 and int(n) >= 0.999 * int(total)
        assert len(comparison["seconds"]["tokgen"]) == 1
    assert [line["clips"] for line in found["extra"]["growth"]] == [6, 24, 96]
    assert "FLOP/s" in said and "as fast as" in said


def test_other_codes_are_seen(bench, tmp_path: Path) -> None:
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
    with pytest.raises(SystemExit, match="2 clips against 1"):
        bench.check(1.0, ours, peer)
