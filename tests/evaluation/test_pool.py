"""Scores from several processes: equal records, processes that die, batches for a GPU."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from makers.audio import make_tone
from tokgen.evaluation import scorer as scoring
from tokgen.evaluation.clips import score_clips
from tokgen.evaluation.pool import ScoringPool
from tokgen.evaluation.reasons import DIED
from tokgen.evaluation.rows import score_audio
from tokgen.evaluation.scorer import Clip, Scorer
from tokgen.metrics.asr.base import RecognitionError
from tokgen.metrics.asr.ctc import Wav2Vec2Recogniser

CLIPS = [make_tone(1.2 + 0.1 * (i % 3), i) for i in range(6)]
NOISY = [c + 0.05 * torch.randn(c.shape, generator=torch.Generator().manual_seed(1)) for c in CLIPS]
TEXTS = ["one", "two", None, "four", "five", "six"]


def make_clips(audio=NOISY):
    return [Clip(a, c, t, 16000) for a, c, t in zip(audio, CLIPS, TEXTS, strict=True)]


def same(a, b):
    """Compare records; NaN equals NaN."""
    return len(a) == len(b) and all(
        x.keys() == y.keys() and all(x[k] == y[k] or (x[k] != x[k] and y[k] != y[k]) for k in x)
        for x, y in zip(a, b, strict=True)
    )


def score_with(scorer, workers, clips):
    with ScoringPool(scorer, workers) as pool:
        return list(pool.score_all(clips))


def test_records_do_not_depend_on_workers() -> None:
    scorer = Scorer(
        ("cer", "mos", "pesq", "si_sdr", "speaker", "f0", "voicing"),
        asr="moonshine",
        mos="distillmos",
        speaker_encoder="resemblyzer",
        device="cpu",
    )
    clips = make_clips([NOISY[0] * math.nan, *NOISY[1:]])[:2]
    plain = list(scorer.score_all(clips))
    assert math.isnan(plain[0]["pesq"]) and plain[1]["pesq"] > 1 and plain[1]["chars"] == 3
    for workers in (1, 2):
        assert same(score_with(scorer, workers, clips), plain)


def test_clips_are_read_as_needed(monkeypatch) -> None:
    monkeypatch.setattr("tokgen.evaluation.pool.WINDOW", 4)
    read = []

    def endless():
        while True:
            read.append(1)
            yield make_clips()[1]

    with ScoringPool(Scorer(("si_sdr",)), 2) as pool:
        records = pool.score_all(endless())
        assert next(records) == next(records)
        assert len(read) <= 8


class Fragile(Scorer):
    """Kills its process at clips of one length, as a crash in C code would."""

    def __init__(self, once: Path | None = None) -> None:
        super().__init__(("pesq", "si_sdr"))
        self.once = once

    def score(self, clip, reference, text, sample_rate, metrics=None, language=None):
        if clip.shape[-1] == 7777 and not (self.once and self.once.exists()):
            if self.once:
                self.once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().score(clip, reference, text, sample_rate, metrics, language)


def fragile_rows():
    return [*NOISY[:2], NOISY[2][:, :7777], *NOISY[3:]], [
        *CLIPS[:2],
        CLIPS[2][:, :7777],
        *CLIPS[3:],
    ]


def test_a_clip_that_kills_its_process_twice_has_failed(tmp_path) -> None:
    clips, references = fragile_rows()
    plain = score_clips(Scorer(("pesq", "si_sdr")), "r", clips, references, TEXTS, 16000)
    with ScoringPool(Fragile(), 2) as pool, pytest.warns(UserWarning, match="7777 samples"):
        found = score_clips(pool, "r", clips, references, TEXTS, 16000, out=tmp_path)
    assert math.isnan(found[2]["pesq"]) and math.isnan(found[2]["si_sdr"])
    assert found[2]["failures"] == dict.fromkeys(("pesq", "si_sdr"), DIED)
    assert same(found[:2] + found[3:], plain[:2] + plain[3:])
    again = score_clips(Fragile(), "r", clips, references, TEXTS, 16000, out=tmp_path)
    assert same(again, found)  # read from the file


def test_a_clip_is_tried_again_if_its_process_dies(tmp_path) -> None:
    clips, references = fragile_rows()
    plain = score_clips(Scorer(("pesq", "si_sdr")), "r", clips, references, TEXTS, 16000)
    with ScoringPool(Fragile(once=tmp_path / "died"), 2) as pool:
        assert same(score_clips(pool, "r", clips, references, TEXTS, 16000), plain)


def test_errors_of_metrics_are_raised() -> None:
    clips = [Clip(NOISY[0], CLIPS[0][:, :-1], None, 16000)]
    with pytest.raises(ValueError, match="trim or pad"):
        score_with(Scorer(("pesq",)), 2, clips)
    with pytest.raises(ValueError, match="workers = -1"):
        ScoringPool(Scorer(("pesq",)), -1)


class Batched(Wav2Vec2Recogniser):
    """Counts samples, so it needs no GPU."""

    backend = "counting"
    languages = ()

    def __init__(self) -> None:
        self.sizes: list[int] = []
        self.place = "cpu"

    def to(self, device) -> None:
        self.place = str(device)

    def _hear(self, audio, language):
        self.sizes.append(len(audio))
        return [f"{len(a)} samples" for a in audio]


def test_a_gpu_gets_batches_of_equal_length(monkeypatch) -> None:
    judge = Batched()
    monkeypatch.setattr(scoring, "make_recogniser", lambda name: judge)
    clips = make_clips([*NOISY[:4], NOISY[4] * math.nan, NOISY[5]])
    plain = list(Scorer(("cer", "pesq"), device="cpu").score_all(clips))
    assert judge.sizes == [1] * 4 and judge.place == "cpu"
    judge.sizes.clear()
    scorer = Scorer(("cer", "pesq"), device="meta")  # any device other than the CPU
    assert scorer.batched == ("cer",) and judge.place == "meta"
    assert same(score_with(scorer, 2, clips), plain)
    assert judge.sizes == [
        2,
        1,
        1,
    ]  # pairs of equal length; without a clip of NaN and one of no text
    assert plain[4]["failures"] == dict.fromkeys(("cer", "pesq"), "NaN or infinite samples")
    assert plain[0]["transcript"] == f"{CLIPS[0].shape[-1]} samples"
    assert plain[4]["transcript"] is None
    with pytest.raises(RecognitionError):
        judge.transcribe(clips[4].audio, 16000)


def test_tables_do_not_depend_on_workers(monkeypatch) -> None:
    rows = {"original": CLIPS, "noisy": NOISY}
    tables = [
        score_audio(
            rows,
            texts=TEXTS,
            sample_rate=16000,
            metrics=("pesq", "f0"),
            workers=n,
            progress=False,
        )
        for n in (0, 2)
    ]
    assert same(tables[0].per_clip, tables[1].per_clip)
    assert tables[0].means == tables[1].means


SCRIPT = """
import time, torch
from tokgen.evaluation.scorer import Clip, Scorer
from tokgen.evaluation.pool import ScoringPool
class Slow(Scorer):
    def score(self, *a):
        time.sleep(600)
clip = Clip(torch.ones(1, 9), torch.ones(1, 9), None, 16000)
list(ScoringPool(Slow(("si_sdr",)), 2).score_all([clip] * 4))
"""


@pytest.mark.slow
def test_a_killed_parent_leaves_no_process_behind() -> None:
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT])
    watched = psutil.Process(parent.pid)
    deadline = time.monotonic() + 60
    while len(children := watched.children()) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(1)  # let them begin
    parent.kill()
    parent.wait()
    _, alive = psutil.wait_procs(children, timeout=300)
    for process in alive:
        process.kill()
    assert len(children) == 2 and not alive
