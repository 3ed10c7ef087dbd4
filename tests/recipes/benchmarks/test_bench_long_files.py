"""The benchmark of long files, on short ones."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import bench_long_files as bench
from ceilings import Ceilings
from tokgen.audio.files import read_audio


def test_it_compares_and_grows(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    ceilings = Ceilings(1e9, 1e9, "float32", "cpu")
    monkeypatch.setattr(bench, "measure_ceilings", lambda device: ceilings)
    out = tmp_path / "found.json"
    args = ["--minutes", "0.1", "--whole-minutes", "0", "--dac-minutes", "0.05", "--rounds", "1"]
    assert bench.main([*args, "--dac-width", "8", "--out", str(out)]) == 0
    found = json.loads(out.read_text())
    checks = [comparison["checked"] for comparison in found["comparisons"].values()]
    assert checks[0] == "2400 of 2400 codes are equal (100.0000 %)"
    assert checks[1] == "1800 of 1800 codes are equal (100.0000 %)"
    rows = found["extra"]["growth"]
    names = [(row["codec"], row["way"], row["minutes"]) for row in rows]
    assert names == [("speech-16k", "blocks", 0.1), ("dac-16k", "blocks", 0.05)]
    assert all(100 < row["peak_mb"] < 1500 and row["encode_s"] > 0 for row in rows)
    said = capsys.readouterr().out
    assert "roofline: " in said and "of 1500 MB" in said


def test_both_ways_write_the_same_audio(tmp_path: Path) -> None:
    file = bench.make_files(tmp_path, [0.05])[0.05]
    for way in ("blocks", "whole"):
        assert bench.run_alone(way, file, "speech-16k", "cpu")["decode_s"] > 0
    blocks, whole = (read_audio(file.with_suffix(f".{way}.flac"))[0] for way in ("blocks", "whole"))
    assert blocks.shape == (1, 48000) and torch.equal(blocks, whole)


def test_codes_that_differ_are_noticed() -> None:
    codes = torch.arange(8).view(1, 2, 4)
    assert bench.same(codes, codes + (codes > 6)).startswith("7 of 8 codes are equal (87.5")
    with pytest.raises(SystemExit, match="shape"):
        bench.same(codes, codes[..., 1:])


@pytest.mark.slow
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    args = bench.parse(["--minutes", "2", "12", "--whole-minutes", "0"])
    files = bench.make_files(tmp_path, args.minutes)
    small, large = (bench.grow(args, args.codec, files[m], m)[0]["peak_mb"] for m in args.minutes)
    assert large < small + 60  # codes, conditioning and allocator; the audio alone is 40 MB more
