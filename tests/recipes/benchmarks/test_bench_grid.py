"""The benchmark of the frame grid, tiny."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench_grid
from rates import highest_rate, lowest_rate


def test_decoded_audio_is_found_and_other_audio_is_not(
    tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--codecs", str(tiny_codec_folder), "--corpus", str(tiny_corpus), "--split", "train"]
    out = tmp_path / "found.json"
    sizes = ["--natural", str(tiny_corpus), "--lengths", "0.5", "--clips", "1", "--excerpts", "2"]
    ways = ["--ways", "none", "int16", "--out", str(out), "--figure", str(tmp_path / "roc.png")]
    assert bench_grid.main([*flags, *sizes, *ways]) == 0
    rows = json.loads(out.read_text())["rows"][str(tiny_codec_folder)]
    assert [row["way"] for row in rows] == [None, None, "none", "int16"]
    assert [row["exact"] for row in rows] == [False, False, True, True]
    said = capsys.readouterr().out
    assert "| none  | 1.00 / 1.00 / 1.00 (n 1) |" in said
    assert "| int16   | 1   | 1.00 (at least 0.05) | 1.00 (at least 0.05) | " in said
    assert "| natural | 2   | 0.00 (at most 0.776) | –                    | " in said
    assert "Natural: 0 of 2 found (at most 77.64 % with 95 % confidence)" in said
    assert (tmp_path / "roc.png").stat().st_size > 5000


def test_natural_excerpts_alone_are_kept_and_continued(
    tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    flags = ["--codecs", str(tiny_codec_folder), "--corpus", str(tiny_corpus), "--split", "train"]
    flags += ["--natural", str(tiny_corpus), "--lengths", "0.5", "0.6", "--clips", "0"]
    found = []
    for n, kept in ((1, ["--keep", str(tmp_path)]), (2, ["--keep", str(tmp_path)]), (2, [])):
        more = ["--excerpts", str(n), "--out", str(tmp_path / "found.json"), *kept]
        assert bench_grid.main([*flags, *more]) == 0
        rows = json.loads((tmp_path / "found.json").read_text())["rows"]
        found.append(rows[str(tiny_codec_folder)])
    first, second, alone = found
    assert second[0] == first[0] and [row["way"] for row in second] == [None, None]
    assert [row["score"] for row in second] == [row["score"] for row in alone]
    (file,) = tmp_path.glob("*natural*.jsonl")
    assert len(file.read_text().splitlines()) == 2


def test_a_tail_is_extrapolated_from_enough_scores() -> None:
    def said(scores: list[float]) -> str:
        rows = [{"way": None, "seconds": 1, "score": x, "found": False, "cpu": 1} for x in scores]
        return bench_grid.show_natural(rows)

    assert "too few to extrapolate" in said([1.0] * 19)
    assert "highest score 4.0 of threshold 8, extrapolated rate 2.5e-04" in said(
        [1.0] * 18 + [2.0, 4.0]
    )  # 2 of 20 above 2, by 1 in the mean: 0.1 exp(-(8 - 2) / 1) is 2.5e-4
    assert said([]).startswith("Natural: 0 of 0 found (at most 100.00 %")


def test_the_area_is_that_under_the_curve() -> None:
    positive, negative = [3.0, 5.0, 2.0, 5.0], [1.0, 4.0, 2.0]
    false, true = bench_grid.roc(positive, negative)
    assert false.tolist() == pytest.approx([0, 0, 1 / 3, 1 / 3, 2 / 3, 1])
    assert true.tolist() == [0, 0.5, 0.5, 0.75, 1, 1]
    area = float(((true[1:] + true[:-1]) / 2 * (false[1:] - false[:-1])).sum())
    assert bench_grid.auc(positive, negative) == pytest.approx(area)
    assert bench_grid.auc([9.0], [1.0]) == 1 and bench_grid.auc([1.0], [9.0]) == 0


def test_the_bound_of_the_rate_is_that_of_clopper_and_pearson() -> None:
    assert highest_rate(0, 100) == pytest.approx(1 - 0.05**0.01, abs=1e-6)
    assert highest_rate(2, 50) == pytest.approx(0.1206, abs=2e-4)
    assert highest_rate(3, 3) == 1 and lowest_rate(0, 3) == 0
    assert lowest_rate(119, 119) == pytest.approx(0.05 ** (1 / 119))
