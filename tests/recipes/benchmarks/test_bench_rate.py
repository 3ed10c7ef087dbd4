"""The table of rates by entropy mode."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

import bench_rate
from makers.paths import ROOT


def test_modes_are_compared(
    tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--codec", str(tiny_codec_folder), "--corpus", str(tiny_corpus), "--split", "train"]
    flags.append("--against")
    for more, low in (([], 1.0), (["--blocks-only"], 0.5)):
        out = tmp_path / f"{low}.json"
        assert bench_rate.main([*flags, "--clips", "3", "--out", str(out), *more]) == 0
        said = capsys.readouterr().out
        assert "without static" in said and "| .tgc, adaptive" in said
        rates = json.loads(out.read_text())["rates"]
        assert set(rates) == {"raw", "zstd -19", "packed", ".tgc, packed", ".tgc, adaptive"}
        assert rates["packed"]["percent_of_packed"]["mean"] == 100
        assert rates["raw"]["percent_of_packed"]["mean"] == pytest.approx(100 * 16 / 6, abs=2)
        assert rates[".tgc, packed"]["percent_of_packed"]["mean"] > 100
    whole, blocks = (json.loads((tmp_path / f"{x}.json").read_text()) for x in (1.0, 0.5))
    packed = [x["rates"][".tgc, packed"]["kbps"]["mean"] for x in (whole, blocks)]
    assert packed[1] < packed[0]


@pytest.mark.parametrize(
    ("quality", "rate", "place", "n_tried"),
    [
        (2.0, 8, "low", 1),
        (2.5, 8, "low", 1),
        (3.0, 12, "", 2),
        (3.4, 15.2, "", 2),
        (3.5, 16, "", 2),
        (3.6, 20, "", 3),
        (4.2, 32, "high", 4),
        (math.nan, math.nan, "failed", 0),
    ],
)
def test_the_rate_of_a_quality_is_interpolated(
    quality: float, rate: float, place: str, n_tried: int
) -> None:
    scores, tried = {8: 2.5, 16: 3.5, 24: 3.7, 32: 4.0}, []

    def score(kbps: float) -> float:
        tried.append(kbps)
        return scores[kbps]

    found, where = bench_rate.rate_at(quality, list(scores), score)
    assert found == pytest.approx(rate, nan_ok=True) and where == place and len(tried) == n_tried


def test_a_bitrate_without_a_score_is_passed_over() -> None:
    scores = {8: math.nan, 16: 2.0, 24: 3.0}
    assert bench_rate.rate_at(2.5, list(scores), scores.__getitem__) == (20, "")


def test_opus_and_mp3_at_equal_quality(
    tiny_codec_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    corpus, out = "recipes/data/allison", tmp_path / "rates.json"
    flags = ["--codec", str(tiny_codec_folder), "--corpus", str(ROOT / corpus), "--clips", "2"]
    assert bench_rate.main([*flags, "--modes", "packed", "--out", str(out)]) == 0
    said, found = capsys.readouterr().out, json.loads(out.read_text())
    assert found["pesq"]["n"] == 2 and "PESQ of tiny: 1." in said  # random weights
    for name, least in (("opus", 6), ("mp3", 8)):
        rate = found["rates"][f"{name} at equal PESQ"]
        assert rate["kbps"]["mean"] == pytest.approx(least) and rate["low"] == 2
        percent = least / found["rates"]["packed"]["kbps"]["mean"] * 100
        assert rate["percent_of_packed"]["mean"] == pytest.approx(percent)
        line = f"{name} at equal PESQ: 2 of 2 clips exceed the codec's PESQ at the lowest bitrate"
        assert line in said
