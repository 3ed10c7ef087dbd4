"""The benchmark of the frame grid, tiny."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench_grid


def test_decoded_audio_is_found_and_other_audio_is_not(
    tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--codecs", str(tiny_codec_folder), "--corpus", str(tiny_corpus), "--split", "train"]
    out = tmp_path / "found.json"
    sizes = ["--natural", str(tiny_corpus), "--lengths", "0.5", "--clips", "1", "--excerpts", "2"]
    ways = ["--ways", "none", "int16", "--out", str(out)]
    assert bench_grid.main([*flags, *sizes, *ways]) == 0
    rows = json.loads(out.read_text())["rows"][str(tiny_codec_folder)]
    assert [row["way"] for row in rows] == [None, None, "none", "int16"]
    assert [row["exact"] for row in rows] == [False, False, True, True]
    said = capsys.readouterr().out
    assert "| none  | 1.00 / 1.00 / 1.00 (n 1) |" in said
    assert "Natural: 0 of 2 found (at most 77.64 % with 95 % confidence)" in said


def test_the_bound_of_the_rate_is_that_of_clopper_and_pearson() -> None:
    assert bench_grid.highest_rate(0, 100) == pytest.approx(1 - 0.05**0.01, abs=1e-6)
    assert bench_grid.highest_rate(2, 50) == pytest.approx(0.1206, abs=2e-4)
