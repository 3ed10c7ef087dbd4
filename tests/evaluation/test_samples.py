"""Tests of sample folders."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch

from makers.audio import make_tone
from makers.codecs import make_stft_codec
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
    assert not list(tmp_path.glob("*.depth.json"))
    with pytest.raises(ValueError, match="same files"):
        write_samples(tmp_path, [columns[0], columns[0]], ["a", "b"], ["thank you", None], 1)


def test_samples_of_variable_bitrate_have_their_depth(tmp_path) -> None:
    spec, clips = make_stft_codec().spec, [make_tone(0.5, seed=0)] * 2
    depths = [torch.arange(25) % 4 + 1, torch.ones(25)]
    column = Column("x", "generated", "tiny", 16000, clips, depths, spec)
    write_samples(tmp_path, [column], ["a", "b"], [None, None], 2)
    content = json.loads((tmp_path / "000.x.depth.json").read_text())
    assert content == {"depth": depths[0].tolist(), "frame_rate": 50.0, "n_codebooks": 4}
    write_samples(tmp_path, [replace(column, depths=None)], ["a", "b"], [None, None], 1)
    assert [path.name for path in tmp_path.glob("*.depth.json")] == ["001.x.depth.json"]
