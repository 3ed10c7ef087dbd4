"""Seeded excerpts of a corpus."""

from __future__ import annotations

import pickle
import shutil
import subprocess
from collections import Counter

import pyarrow.parquet as pq
import pytest
import torch

from makers.corpora import run, save, table, tone
from tokgen.corpus.excerpts import sample_excerpts
from tokgen.corpus.listed import Corpus, open_corpus
from tokgen.drift.clips import DriftClips


@pytest.fixture
def corpus(tmp_path):
    folder = tmp_path / "clips"
    for name, seconds in (("short", 0.4), ("a", 1.0), ("b", 3.0)):
        save(folder / f"{name}.wav", torch.linspace(0.1, 0.9, int(16000 * seconds)).numpy())
    return open_corpus(folder)


def places(excerpts: Corpus) -> list[tuple[str, float]]:
    return [(id.split("@")[0], float(id.split("@")[1])) for id in (e.id for e in excerpts.entries)]


def test_the_same_arguments_give_the_same_excerpts_anywhere(corpus, tmp_path):
    first = sample_excerpts(corpus, n=5, seconds=0.5, seed=7)
    again = sample_excerpts(open_corpus(tmp_path / "clips"), n=5, seconds=0.5, seed=7)
    assert [e.id for e in first.entries] == [e.id for e in again.entries]
    assert [e.id for e in first.entries] == ["a@0.268", "a@0.405", "b@0.994", "b@1.145", "b@2.342"]
    assert first.fingerprint == again.fingerprint
    other = sample_excerpts(corpus, n=5, seconds=0.5, seed=8)
    assert places(other) != places(first)
    assert len({first.fingerprint, other.fingerprint, corpus.fingerprint}) == 3


def test_clips_are_drawn_by_length_and_starts_are_uniform(corpus):
    found = places(sample_excerpts(corpus, n=1000, seconds=0.5, seed=0))
    assert len(set(found)) == 1000
    by_clip = Counter(clip for clip, _ in found)
    assert set(by_clip) == {"a", "b"}, "a clip shorter than an excerpt is never drawn"
    long = [start for clip, start in found if clip == "b"]
    quarters = Counter(int(start / 2.501 * 4) for start in long)
    assert min(quarters.values()) > 0.85 * len(long) / 4
    assert 0 <= min(long) < 0.02 and 2.48 < max(long) <= 2.5
    few = places(sample_excerpts(corpus, n=100, seconds=0.5, seed=0))
    assert 15 <= Counter(clip for clip, _ in few)["a"] <= 35  # a quarter of the audio


def test_an_excerpt_is_that_part_of_its_clip(corpus):
    excerpts = sample_excerpts(corpus, n=20, seconds=0.25, seed=1)
    whole = {u.id: u.waveform for u in corpus.utterances(16000, rejected=[])}
    rejected = []
    heard = list(excerpts.utterances(16000, rejected=rejected))
    assert not rejected and len(heard) == len(excerpts) == 20
    for utterance, (clip, start) in zip(heard, places(excerpts), strict=True):
        first = round(16000 * start)
        assert torch.equal(utterance.waveform, whole[clip][:, first : first + 4000])


def test_an_excerpt_has_the_channels_of_its_clip(tmp_path):
    ramp = torch.linspace(0.1, 0.9, 16000)
    save(tmp_path / "a.wav", torch.stack([ramp, -ramp.square()], 1).numpy())
    clip = open_corpus(tmp_path)
    excerpts = sample_excerpts(clip, n=3, seconds=0.25, seed=1)
    [whole] = clip.utterances(16000, rejected=[], channels=2)
    [mixed] = clip.utterances(16000, rejected=[])
    starts = [round(16000 * start) for _, start in places(excerpts)]
    for first, kept in zip(
        starts, excerpts.utterances(16000, rejected=[], channels=2), strict=True
    ):
        assert kept.waveform.equal(whole.waveform[:, first : first + 4000])
    for first, heard in zip(starts, excerpts.utterances(16000, rejected=[]), strict=True):
        assert heard.waveform.equal(mixed.waveform[:, first : first + 4000])


@pytest.mark.parametrize("rate", [11025, 22050, 44100])
def test_every_excerpt_has_the_same_length_at_odd_rates(tmp_path, rate):
    save(tmp_path / "a.wav", tone(0.71, rate=rate), rate=rate)
    excerpts = sample_excerpts(open_corpus(tmp_path), n=200, seconds=0.501, seed=0)
    rejected = []
    lengths = {u.waveform.shape[-1] for u in excerpts.utterances(rate, rejected=rejected)}
    assert lengths == {-(-501 * rate // 1000)} and not rejected


def test_excerpts_are_a_corpus(corpus):
    excerpts = sample_excerpts(corpus, n=6, seconds=0.5, seed=3)
    kept = pickle.loads(pickle.dumps(excerpts)).select(n=2)
    assert [e.id for e in kept.entries] == [e.id for e in excerpts.entries[:2]]
    clips = DriftClips(kept, None)
    assert clips.load(1, 16000).shape == (1, 8000)
    assert {e.seconds for e in excerpts.entries} == {0.5} and excerpts.is_local


def test_a_table_keeps_its_speakers_but_no_text(tmp_path):
    rows = table(tmp_path, 1, id=["x"], text=["hello"], speaker=["ann"], language=["en"])
    pq.write_table(rows, tmp_path / "t.parquet")
    corpus = open_corpus(tmp_path / "t.parquet")
    (entry,) = sample_excerpts(corpus, n=1, seconds=0.2, seed=0).entries
    assert (entry.speaker, entry.language, entry.text) == ("ann", "en", None)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="needs ffmpeg")
def test_a_clip_without_a_duration_in_its_header_is_counted(tmp_path):
    wav = save(tmp_path / "source" / "a.wav", tone(1.0))
    folder = tmp_path / "clips"
    folder.mkdir()
    command = ["ffmpeg", "-v", "error", "-i", str(wav), "-f", "webm", "-live", "1", "-"]
    (folder / "a.webm").write_bytes(subprocess.run(command, check=True, capture_output=True).stdout)
    corpus = open_corpus(folder)
    assert corpus.entries[0].seconds is None
    excerpts = sample_excerpts(corpus, n=3, seconds=0.5, seed=0)
    assert len(list(excerpts.utterances(16000, rejected=[]))) == 3


def test_what_cannot_be_sampled_is_refused_and_what_is_damaged_is_named(tmp_path):
    folder = tmp_path / "clips"
    save(folder / "a.wav", tone(1.0))
    (folder / "bad.wav").write_text("bad")
    corpus = open_corpus(folder)
    with pytest.raises(ValueError, match="none of its 1 clips has 2 s for an excerpt"):
        sample_excerpts(corpus.select(ids=["a"]), n=1, seconds=2.0, seed=0)
    with pytest.raises(ValueError, match="n = 102: clips has 101 different excerpts"):
        sample_excerpts(corpus, n=102, seconds=0.9, seed=0)
    with pytest.raises(ValueError, match="n = 0"):
        sample_excerpts(corpus, n=0, seconds=0.9, seed=0)
    everything = sample_excerpts(corpus, n=101, seconds=0.9, seed=0)
    assert [start for _, start in places(everything)] == [i / 1000 for i in range(101)]
    assert [r.source for r in everything.rejections] == [str(folder / "bad.wav")]


def test_metadata_that_promises_too_much_is_named(tmp_path):
    pq.write_table(table(tmp_path, 1, id=["x"], duration=[10.0]), tmp_path / "t.parquet")
    excerpts = sample_excerpts(open_corpus(tmp_path / "t.parquet"), n=3, seconds=0.4, seed=0)
    _, rejected = run(excerpts)
    assert rejected and "has 0.500 s, too few for a piece to" in str(rejected[0])
