"""The scoring benchmark, tiny."""

from __future__ import annotations

import json

import bench_scoring


def test_both_contenders_agree_and_the_pool_agrees_with_one_process(tiny_corpus, tmp_path) -> None:
    sizes = ["--clips", "2", "--rows", "2", "--rounds", "1", "--warmup", "0", "--workers", "2"]
    flags = ["--corpus", str(tiny_corpus), "--alone", "--out", str(tmp_path / "found.json")]
    assert bench_scoring.main([*sizes, *flags]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert found["extra"]["records of the pool equal to those of one process"] is True
    comparison = next(iter(found["comparisons"].values()))
    assert set(comparison["seconds"]) == {"tokgen", "a loop over clips"}
    assert "4 records, transcripts and edits equal" in comparison["checked"]
