"""Scores of clips: resume after a kill, stored records, and every metric."""

from __future__ import annotations

import math

import pytest
import torch

from makers.audio import make_tone
from tokgen.evaluation import scorer as scoring
from tokgen.evaluation.clips import score_clips
from tokgen.evaluation.metric import METRICS
from tokgen.evaluation.scorer import Scorer
from tokgen.runs.store import RecordStore

CLIPS = [make_tone(1.2, i) for i in range(4)]
NOISY = [c + 0.05 * torch.randn(c.shape, generator=torch.Generator().manual_seed(1)) for c in CLIPS]
TEXTS = ["one", "two", "three", "four"]


class Counting(Scorer):
    """Counts the clips that it scores, and can stop as if killed."""

    def __init__(self, stop_after: int = 99) -> None:
        super().__init__(("pesq", "si_sdr"))
        self.n, self.stop_after = 0, stop_after

    def score(self, clip, reference, text, sample_rate, metrics=None, language=None):
        if self.n == self.stop_after:
            raise KeyboardInterrupt
        self.n += 1
        return super().score(clip, reference, text, sample_rate, metrics, language)


def score(scorer, out, clips=NOISY, texts=TEXTS):
    return score_clips(scorer, "noisy", clips, CLIPS, texts, 16000, out=out)


def test_a_kill_loses_one_clip_at_most(tmp_path) -> None:
    whole = score(Counting(), tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        score(Counting(stop_after=2), tmp_path / "cut")
    path = next((tmp_path / "cut").iterdir())
    path.write_text(path.read_text() + '{"row": "noisy", "cli')  # an unfinished line
    rest = Counting()
    assert score(rest, tmp_path / "cut") == whole
    assert rest.n == 2
    again = Counting()
    assert score(again, tmp_path / "cut") == whole and again.n == 0


def test_other_audio_texts_or_backends_are_scored_again(tmp_path) -> None:
    score(Counting(), tmp_path)
    quieter = Counting()
    score(quieter, tmp_path, clips=[0.5 * c for c in NOISY])
    assert quieter.n == 4
    renamed = Counting()
    score(renamed, tmp_path, texts=["1", *TEXTS[1:]])
    assert renamed.n == 4
    other = Counting()
    other.backends["pesq"] = "another"
    score(other, tmp_path)
    assert other.n == 4


def test_failures_are_read_back(tmp_path) -> None:
    broken = [CLIPS[0] * math.nan, *NOISY[1:]]
    first = score(Counting(), tmp_path, clips=broken)
    again = score(Counting(), tmp_path, clips=broken)
    assert math.isnan(first[0]["pesq"]) and math.isnan(again[0]["pesq"])
    assert first[1:] == again[1:]


def test_every_metric_has_a_value(monkeypatch) -> None:
    class Parrot:
        backend = "parrot"
        languages = ()

        def transcribe(self, waveform, sample_rate):
            return "one two"

    class Sign:
        backend = "sign"

        def embed(self, waveform, sample_rate):
            return None if waveform.shape[-1] < 8000 else torch.nn.functional.normalize(
                waveform[0, :8], dim=0
            )  # fmt: skip

    monkeypatch.setattr(scoring, "make_recogniser", lambda name: Parrot())
    monkeypatch.setattr(scoring.speaker, "make_speaker_encoder", lambda name: Sign())
    scorer = Scorer(tuple(set(METRICS) - {"mos", "utmos", "nisqa", "fad"}))
    record = scorer.score(CLIPS[0], CLIPS[0], "one three", 16000)
    assert (record["edits"], record["chars"]) == (4, 9)
    assert record["speaker"] == pytest.approx(1.0) and record["f0"] == 0 == record["voicing"]
    assert record["pesq"] == pytest.approx(4.644, abs=1e-3)
    assert math.isnan(scorer.score(CLIPS[0][:, :4000], CLIPS[0][:, :4000], "", 16000)["speaker"])
    assert scorer.backends["speaker"] == "sign" and "swift-f0" in scorer.backends["f0"]
    assert scorer.backends["cer"] == "parrot, no cap"
    assert scorer.score(CLIPS[0], CLIPS[0], "o", 16000)["edits"] == 6  # of 1 character
    capped = Scorer(("cer",), cer_cap=1)
    assert capped.backends["cer"] == "parrot, clips capped at 1"
    assert capped.score(CLIPS[0], CLIPS[0], "o", 16000)["edits"] == 1


def test_unknown_metrics_are_refused() -> None:
    with pytest.raises(
        ValueError, match=r"metrics \['pesk'\] \(did you mean pesq\?\): known are cer, dnsmos"
    ):
        Scorer(("pesq", "pesk"))


def test_records_end_before_a_broken_line(tmp_path) -> None:
    store = RecordStore(tmp_path, "a/b", {"x": 1})
    store.append({"n": 1})
    store.append({"n": math.nan})
    path = next(tmp_path.iterdir())
    assert "/" not in path.name
    lines = path.read_text().splitlines()
    path.write_text(lines[0] + "\nnot json\n" + lines[1] + "\n")
    assert RecordStore(tmp_path, "a/b", {"x": 1}).records == [{"n": 1}]
    assert RecordStore(tmp_path, "a/b", {"x": 2}).records == []
