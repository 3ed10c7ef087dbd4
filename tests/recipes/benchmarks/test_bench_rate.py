"""The table of rates by entropy mode."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import bench_rate


def test_modes_are_compared(
    tiny_codec_folder: Path, tiny_corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    flags = ["--codec", str(tiny_codec_folder), "--corpus", str(tiny_corpus), "--split", "train"]
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
