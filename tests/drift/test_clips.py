"""Clips of a drift measurement: random excerpts as in the paper."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from makers.audio import RATE, make_tone
from makers.codecs import BlockCodec
from makers.effects import Effect
from tokgen.audio.files import write_audio
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.drift.clips import DriftClips
from tokgen.drift.compare import measure_drift
from tokgen.drift.settings import DriftSettings


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Corpus:
    """Nine seconds of audio that ten excerpts of a second do not fit in, and a short clip."""
    folder = tmp_path_factory.mktemp("corpus")
    for seed, name in enumerate("abc"):
        write_audio(folder / f"{name}.wav", make_tone(3.0, seed), RATE)
    write_audio(folder / "short.wav", make_tone(0.5, 7), RATE)
    return open_corpus(folder)


def test_excerpts_are_seeded_seconds_of_the_corpus(corpus: Corpus):
    clips = DriftClips.excerpts(corpus, 6)
    assert len(clips) == 6 and clips.label == "6 excerpts of 1 s (seed 0, from 9 s)"
    for index, clip_id in enumerate(clips.ids()):
        name, start = clip_id.split("@")
        whole = corpus.load(corpus.select(ids=[name]).entries[0], RATE).waveform
        first = round(float(start) * RATE)
        assert torch.equal(clips.load(index, RATE), whole[:, first : first + RATE])
    again, other = DriftClips.excerpts(corpus, 6), DriftClips.excerpts(corpus, 6, seed=1)
    assert again.fingerprint == clips.fingerprint != other.fingerprint
    assert DriftClips.excerpts(corpus, 12, seconds=0.5).load(0, RATE).shape == (1, RATE // 2)


def test_too_little_audio_is_refused_with_its_seconds(corpus: Corpus, tmp_path: Path):
    with pytest.raises(ValueError, match=r"need 500 s, but corpus\d has 9 s .* give 9 clips or f"):
        measure_drift(BlockCodec(), corpus, tmp_path / "a", protocol="paper")
    with pytest.raises(ValueError, match=r"has 0 s in clips of 5 s or more; give shorter clip_"):
        DriftClips.excerpts(corpus, 1, seconds=5.0)


def test_the_paper_protocol(corpus: Corpus, tmp_path: Path):
    settings = {"passes": 2, "samples": 0, "progress": False}
    found = measure_drift(
        [Effect(lambda w: 0.5 * w), BlockCodec()], corpus, tmp_path, protocol="paper", clips=4,
        seed=3, shift=37, **settings,
    )  # fmt: skip
    content = json.loads((tmp_path / "drift.json").read_text())["settings"]
    expected = {"protocol": "paper", "clips": 4, "clip_seconds": 1.0, "match_level": True}
    assert content.items() >= {**expected, "seed": 3, "shift": 37}.items()
    said = "4 excerpts of 1 s (seed 3, from 9 s), levels matched, moved by +37 samples"
    assert said in found.table()
    assert found.runs[0].ids == DriftClips.excerpts(corpus, 4, seed=3).ids()
    with pytest.raises(FileExistsError, match="seed was 3, now 4"):
        measure_drift(
            [Effect(lambda w: 0.5 * w), BlockCodec()], corpus, tmp_path, protocol="paper", clips=4,
            seed=4, shift=37, **settings,
        )  # fmt: skip


def test_failures_of_excerpts_are_counted(tmp_path: Path):
    """PESQ needs a quarter of a second, and silent excerpts are left out."""
    folder = tmp_path / "corpus"
    write_audio(folder / "a.wav", make_tone(2.0, 0), RATE)
    write_audio(folder / "b.wav", torch.cat([make_tone(0.2, 0), torch.zeros(1, 2 * RATE)], 1), RATE)
    short = {"clip_seconds": 0.2, "clips": 12, "passes": 2, "progress": False}
    (drift,) = measure_drift(
        BlockCodec(), open_corpus(folder), tmp_path / "out", protocol="paper", **short
    ).drifts
    pesq = drift.at("pesq", 1)
    assert (pesq.n, pesq.n_failed) == (0, drift.n_clips) and 0 < drift.n_clips < 12
    assert len(drift.rejections) == 12 - drift.n_clips
    assert all("b.wav at" in r and "silence" in r for r in drift.rejections)
    assert "shorter than 0.25 s, which PESQ needs" in drift.failure_lines()[0]


def test_settings_that_the_paper_does_not_have_are_refused():
    with pytest.raises(ValueError, match="match_level is false, but protocol paper matches"):
        DriftSettings(protocol="paper", match_level=False)
    with pytest.raises(ValueError, match="clip_seconds is 0, but protocol paper"):
        DriftSettings(protocol="paper", clip_seconds=0)
    with pytest.raises(ValueError, match="protocol 'papers': must be first or paper"):
        measure_drift([], "corpus", "out", protocol="papers")
