"""The benchmark of splices, tiny."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import bench_splices
from makers.audio import RATE, make_tone
from tokgen.audio.files import write_audio
from tokgen.codec.grid_segments import GridSegment
from tokgen.zoo.stft import StftCodec


def test_parts_and_borders_are_found(
    tiny_codec_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    for seed in (2, 3):
        write_audio(tmp_path / f"audio/{seed}.wav", make_tone(2.4, seed), RATE)
    line = f"--codecs {tiny_codec_folder} --split train --splices 1 --longest 2".split()
    out = tmp_path / "found.json"
    line += ["--corpus", str(tmp_path / "audio"), "--out", str(out)]
    assert bench_splices.main(line) == 0
    rows = json.loads(out.read_text())["rows"][str(tiny_codec_folder)]
    assert [row["kind"] for row in rows] == list(bench_splices.KINDS)
    assert rows[0]["found"] and rows[0]["frames"] <= 2
    assert "| decoded, decoded | 1   | 1.00 (at least 0.05) |" in capsys.readouterr().out


def test_wrong_parts_do_not_count(tiny_codec: StftCodec, monkeypatch: pytest.MonkeyPatch) -> None:
    pieces = [torch.zeros(6400), torch.zeros(3200)]
    parts = [GridSegment(0, 5760, None), GridSegment(5760, 9600, None)]
    monkeypatch.setattr(bench_splices, "find_grids", lambda audio, codec: parts)
    found = bench_splices.search(tiny_codec, pieces, [None, None])
    assert found["found"] and found["frames"] == 2 and found["seconds"] == 0.6
    missed = bench_splices.search(tiny_codec, pieces, [None, 7])
    assert not missed["found"] and missed["frames"] is None
    rows = [{"kind": kind} | missed for kind in bench_splices.KINDS]
    assert "| 0.00 (at least 0.00) | –" in bench_splices.table(rows)
