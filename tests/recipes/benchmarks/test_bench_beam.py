"""The benchmark of the beam search, tiny."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench_beam


def test_all_encodings_are_measured_on_the_same_clips(
    tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--codec", str(tiny_codec_folder), "--corpus", str(tiny_corpus), "--clips", "2"]
    out = tmp_path / "found.json"
    sizes = ["--beams", "2", "4", "--scored", "1", "2"]
    assert bench_beam.main([*flags, *sizes, "--out", str(out)]) == 0
    found = json.loads(out.read_text())["codecs"][str(tiny_codec_folder)]
    names = {"greedy", *(f"{d}, beam {b}" for d in ("projected", "latent") for b in (2, 4))}
    assert set(found["codec"]) == set(found["control"]) == names
    for row in found["codec"].values():
        assert set(row) == {"seconds", *bench_beam.digits_of([1, 2])}
        assert len(row["own codes"]) == 2 and min(row["own codes"]) >= 0
    left = {name: sum(row["variance left"]) for name, row in found["control"].items()}
    assert left["latent, beam 4"] < left["greedy"]
    said = capsys.readouterr().out
    assert "| PESQ @ 2" in said and "| variance left" in said and "time of encoding" in said
