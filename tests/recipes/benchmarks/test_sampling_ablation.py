"""The ablation of sampling, tiny."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import sampling_ablation
from makers.generators import make_generator
from tokgen.zoo.stft import StftCodec


def test_rows_are_compared_and_continued(
    tiny_codec: StftCodec,
    tiny_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture,
) -> None:
    folder = tmp_path / "zoo" / "tiny"
    tiny_codec.save_pretrained(folder)
    make_generator(tiny_codec).save_pretrained(folder / "generator")
    monkeypatch.setattr(sampling_ablation, "METRIC_NAMES", ("pesq",))
    flags = ["--model", str(folder), "--corpus", str(tiny_corpus), "--seeds", "2"]
    flags += ["--vary", "guidance", "--out", str(tmp_path / "out")]
    assert sampling_ablation.main(flags) == 0
    shown = capsys.readouterr().out
    assert "| guidance_scale 3 " in shown and "minus base" in shown
    found = json.loads((tmp_path / "out/results.json").read_text())
    assert found["n"] == 2 and set(found["rows"]) - set(found["minus the first"]) == {"base"}
    assert found["rows"]["base"]["pesq"]["n"] == 2
    cells = list((tmp_path / "out/cells").iterdir())
    assert len(cells) == 2 * len(found["rows"]) == 10
    times = found["cpu_seconds"]
    assert sampling_ablation.main(flags) == 0  # all cells were kept
    assert json.loads((tmp_path / "out/results.json").read_text())["cpu_seconds"] == times


def test_a_plan_has_a_row_for_each_change_and_model() -> None:
    rows = sampling_ablation.plan(["a", "b"], ["mask_temperature"])
    assert list(rows) == ["a", "b", *(f"mask_temperature {t}" for t in (0, 3, 30))]
    assert rows["b"] == ("b", sampling_ablation.BASE)
    label, settings = rows["mask_temperature 3"]
    assert label == "a" and settings.mask_temperature == 3
