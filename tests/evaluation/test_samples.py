"""Tests of sample folders."""

from __future__ import annotations

import json

import pytest
import torch

from makers.audio import make_tone
from tokgen.audio.files import read_audio
from tokgen.evaluation.samples import Column, write_samples


def test_samples_and_their_index(tmp_path) -> None:
    originals = [make_tone(seconds, seed=0) for seconds in (1.0, 0.5)]
    columns = [
        Column("original", "original", None, 16000, originals),
        Column("a/b generated", "generated", "a/b", 16000, originals[:1]),
    ]
    write_samples(tmp_path, columns, ["a", "b"], ["thank you", None], 5)
    index = json.loads((tmp_path / "index.json").read_text())
    assert [c["name"] for c in index["columns"]] == ["original", "a/b generated"]
    assert index["columns"][0]["codec"] is None and index["columns"][1]["codec"] == "a/b"
    assert [set(c["files"]) for c in index["clips"]] == [
        {"original", "a/b generated"}, {"original"},
    ]  # fmt: skip
    waveform, _ = read_audio(tmp_path / index["clips"][1]["files"]["original"])
    torch.testing.assert_close(waveform, originals[1], atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="same files"):
        write_samples(tmp_path, [columns[0], columns[0]], ["a", "b"], ["thank you", None], 1)
