"""Fitting the codec of a quantizer and a continuous codec: once, and to the end."""

from __future__ import annotations

import json
import math
import shutil
from pathlib import Path

import pytest
import torch

import tokgen
from makers.audio import make_tone
from makers.continuous import make_continuous
from tokgen.quantizers.offline.registry import make_quantizer
from tokgen.quantizers.offline.settings import QincoTraining
from tokgen.zoo.cards import describe_codec
from tokgen.zoo.offline_fitting import FITTED, fit_codec, levels_for

QINCO = {"preset": None, "n_blocks": 1, "embedding_dim": 8, "hidden_dim": 8, "preselect": 4}
STEPS = QincoTraining(steps=4, batch_size=32, checkpoint_every=2, warmup=0)


@pytest.fixture(scope="module")
def continuous():
    return make_continuous()


def fit(continuous, folder: Path, kind: str = "kmeans", training: QincoTraining = STEPS):
    shape = {"dim": 8, "n_codebooks": 2, "codebook_size": 16}
    quantizer = make_quantizer(kind, **shape, **(QINCO if kind == "qinco2" else {}))
    frames = continuous.encode(make_tone(4.0, 0)[None])[0].T
    return fit_codec(
        continuous, quantizer, frames, folder, name="x", beam=4, training=training, seed=1
    )


def test_a_fit_is_made_once_and_completed_if_it_was_cut(continuous, tmp_path):
    found = fit(continuous, tmp_path)
    assert found["seconds"] > 0 and found["n_frames"] == 200
    codec = tokgen.load_codec(tmp_path / "codec")
    assert codec.search.beam == 4 and codec.spec.n_codebooks == 2
    weights = tmp_path / "codec/quantizer/model.safetensors"
    before = weights.stat().st_mtime_ns
    assert fit(continuous, tmp_path) == found and weights.stat().st_mtime_ns == before
    (tmp_path / FITTED).unlink()  # a kill while the codec was saved
    shutil.rmtree(tmp_path / "codec/quantizer")
    fit(continuous, tmp_path)
    assert tokgen.load_codec(tmp_path / "codec").spec.weight_hash == codec.spec.weight_hash
    assert fit(continuous, tmp_path / "pq", "pq")["n_frames"] == 200
    assert tokgen.load_codec(tmp_path / "pq/codec").search is None  # it has no beam


def test_other_processes_wait_for_the_first_one(continuous, tmp_path, monkeypatch):
    class Second:
        is_main_process = False

    def sleep(seconds):  # the first process is done meanwhile
        assert not (tmp_path / FITTED).exists()
        fit(continuous, tmp_path)

    monkeypatch.setattr("tokgen.zoo.offline_fitting.time.sleep", sleep)
    quantizer = make_quantizer("kmeans", dim=8, n_codebooks=2, codebook_size=16)
    monkeypatch.setattr(quantizer, "fit", None)  # calling it would be a TypeError
    more = {"name": "x", "accelerator": Second()}
    found = fit_codec(continuous, quantizer, torch.zeros(1, 8), tmp_path, **more)
    assert found["n_frames"] == 200


def test_the_facts_and_messages_of_a_fitted_codec(continuous, tmp_path):
    fit(continuous, tmp_path)
    codec = tokgen.load_codec(tmp_path / "codec")
    facts = describe_codec(codec)
    assert "search       beam of 4 paths" in str(facts) and facts.to_dict()["beam"] == 4
    assert "beam" not in describe_codec(codec.with_beam(1)).to_dict()
    with pytest.raises(ValueError, match=rf"{tmp_path.name}/codec was fitted to its latents"):
        codec.with_beam(2, "angle")


def test_qinco2_continues_and_counts_the_seconds_of_all_steps(continuous, tmp_path, monkeypatch):
    fit(continuous, tmp_path / "whole", "qinco2")
    clock = iter([0.0, 10.0, 0.0, 10.0])
    monkeypatch.setattr("tokgen.zoo.offline_fitting.time.process_time", lambda: next(clock))
    fit(continuous, tmp_path / "cut", "qinco2")
    shutil.rmtree(tmp_path / "cut/checkpoints/step-4")
    (tmp_path / "cut" / FITTED).unlink()
    assert fit(continuous, tmp_path / "cut", "qinco2")["seconds"] == 20  # 10 for half the steps
    whole, cut = (tokgen.load_codec(tmp_path / name / "codec") for name in ("whole", "cut"))
    state = whole.model.quantizer.state_dict()
    assert all(torch.equal(v, state[k]) for k, v in cut.model.quantizer.state_dict().items())


def test_seconds_are_unknown_if_all_steps_were_made_before(continuous, tmp_path):
    fit(continuous, tmp_path, "qinco2")
    (tmp_path / FITTED).unlink()
    assert math.isnan(fit(continuous, tmp_path, "qinco2")["seconds"])
    assert json.loads((tmp_path / FITTED).read_text())["seconds"] is None
    assert math.isnan(fit(continuous, tmp_path, "qinco2")["seconds"])


def test_a_bitrate_is_a_whole_number_of_levels():
    assert [levels_for(kbps, 50.0, 1024) for kbps in (0.5, 4, 8)] == [1, 8, 16]
    assert levels_for(4, 50.0, 1000) == 8  # 3.986 kbps
    with pytest.raises(ValueError, match=r"bitrate = 4.2: .* use 4 or 4.5, or another"):
        levels_for(4.2, 50.0, 1024)
