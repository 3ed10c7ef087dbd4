"""Scores of rows: references, counts, failures and the JSON form."""

import json
import math
import warnings

import pytest
import torch

from makers.audio import make_tone
from makers.paths import ALLISON
from tokgen.corpus.listed import open_corpus
from tokgen.evaluation import scorer as scoring
from tokgen.evaluation.rows import score_audio
from tokgen.metrics.asr.base import RecognitionError

CLIPS = [make_tone(s, i) for i, s in enumerate((1.2, 0.9, 1.5))]
NOISY = [c + 0.05 * torch.randn(c.shape, generator=torch.Generator().manual_seed(1)) for c in CLIPS]
TEXTS = ["one two", "three", None]


def values_of(scores):
    """Row name to metric name to estimate."""
    return {row.name: row.values for row in scores.means.rows}


class Parrot:
    """A recogniser that returns the same text for every clip."""

    backend = "parrot"
    languages = ("en",)

    def transcribe(self, waveform, sample_rate):
        return "one two"


@pytest.fixture
def scores(monkeypatch):
    monkeypatch.setattr(scoring, "make_recogniser", lambda name: Parrot())
    rows = {"original": CLIPS, "noisy": NOISY}
    metrics = ("cer", "pesq", "si_sdr")
    return score_audio(rows, texts=TEXTS, sample_rate=16000, metrics=metrics, progress=False)


def test_cer_is_pooled_over_the_clips_that_have_a_transcript(scores):
    cer = values_of(scores)["original"]["cer"]
    assert (cer.n, cer.n_failed) == (2, 0)
    assert cer.mean == pytest.approx((0 + 7) / (7 + 5))  # one clip has more edits than letters


def test_intervals_stay_within_the_range_of_the_metric(scores):
    rows = values_of(scores)
    assert rows["original"]["cer"].low == 0  # two clips, without and with errors
    assert rows["original"]["pesq"].high < 4.66
    assert rows["noisy"]["pesq"].low >= 1


def test_reference_metrics_compare_with_the_reference_row(scores):
    rows = values_of(scores)
    assert rows["original"]["pesq"].mean == pytest.approx(4.644, abs=1e-3)
    assert rows["noisy"]["pesq"].mean < 4
    si_sdr = rows["original"]["si_sdr"]  # infinite, which is no failure
    assert (si_sdr.n, si_sdr.n_failed) == (0, 0) and math.isnan(si_sdr.mean)
    assert 0 < rows["noisy"]["si_sdr"].mean < 30


def test_json_form_has_all_keys(scores):
    content = json.loads(json.dumps(scores.means.rows_as_dict(), allow_nan=False))
    for row in ("original", "noisy"):
        for metric in ("cer", "pesq", "si_sdr"):
            keys = {"mean", "low", "high", "n", "n_failed", "backend"}
            assert set(content[row][metric]) == keys
    assert content["noisy"]["cer"]["backend"] == "parrot, no cap"
    assert content["original"]["si_sdr"]["mean"] is None


def test_what_does_not_apply_is_a_dash_and_no_failure(scores):
    table = scores.table()
    assert "CER: parrot" in table and "P.862.2" in table
    original = next(line for line in table.splitlines() if line.startswith("original"))
    assert original.endswith("–") and "failed" not in table
    assert "CER does not apply to 1 of 3 clips: no transcript" in table
    assert "SI-SDR does not apply to 3 of 3 clips of original: equal to the reference" in table
    assert len(scores.per_clip) == 6 and math.isnan(scores.per_clip[2]["edits"])
    assert scores.per_clip[2]["not_applicable"]["cer"] == "no transcript"
    assert scores.to_dict()["failures"] == [] and "–" in scores.means._repr_html_()


def test_every_failure_has_its_clip_and_reason():
    silence = torch.zeros_like(CLIPS[1])
    short = [c[:, :800] for c in CLIPS]
    metrics = ("pesq", "si_sdr", "mos", "speaker", "f0", "voicing")
    backends = {"mos": "distillmos", "speaker": "resemblyzer", "progress": False, "workers": 0}
    found = score_audio(
        {"original": [CLIPS[0], silence], "decoded": [CLIPS[0] * math.nan, CLIPS[1]]},
        sample_rate=16000, metrics=metrics, ids=["a", "b/1"], **backends,
    )  # fmt: skip
    failures = found.to_dict()["failures"]
    assert failures == found.means.to_dict()["failures"]
    told = {(f["row"], f["clip"], f["metric"]): f["reason"] for f in failures}
    assert len(told) == len(failures)
    none = "PESQ finds no utterance in the reference"
    assert told["original", "b/1", "pesq"] == told["decoded", "b/1", "pesq"] == none
    assert {told["decoded", "a", m] for m in metrics} == {"NaN or infinite samples"}
    assert told["original", "b/1", "mos"] == "silent"
    assert told["decoded", "b/1", "si_sdr"] == "the reference: silent"
    assert told["original", "b/1", "speaker"] == "shorter than 1 s"
    assert told["original", "b/1", "f0"] == "no frame is voiced in both the clip and the reference"
    assert ("original", "a", "si_sdr") not in told and ("original", "b/1", "voicing") not in told
    counted = sum(e.n_failed for row in values_of(found).values() for e in row.values())
    assert counted == len(failures)
    table = found.table()
    assert f"  pesq of b/1 in original, decoded: {none}" in table
    assert 'the JSON form lists all under "failures"' in table
    assert "failed in original: pesq 1, si_sdr 1, mos 1, speaker 1, f0 1" in table
    tiny = score_audio({"original": short}, sample_rate=16000, metrics=("pesq", "f0"), **backends)
    assert {f["reason"] for f in tiny.to_dict()["failures"]} == {
        "shorter than 0.25 s, which PESQ needs", "shorter than 0.2 s"
    }  # fmt: skip
    assert [f["clip"] for f in tiny.to_dict()["failures"]] == ["0", "0", "1", "1", "2", "2"]


def test_long_clips_have_a_pesq():
    long = torch.cat([make_tone(8.0, 0), torch.zeros(1, 11 * 16000), make_tone(4.0, 1)], -1)
    noisy = long + 0.01 * torch.randn(long.shape, generator=torch.Generator().manual_seed(1))
    rows = {"original": [long], "noisy": [noisy]}
    found = score_audio(rows, sample_rate=16000, metrics="pesq", progress=False, workers=0)
    pesq = values_of(found)["noisy"]["pesq"]
    assert 1 < pesq.mean < 4.6 and (pesq.n, pesq.n_failed) == (1, 0)
    assert "PESQ of 1 clip longer than 19.5 s: mean over 2 equal pieces" in found.table()


def test_one_clip_has_a_value_without_an_interval():
    rows = {"original": CLIPS[:1], "noisy": NOISY[:1]}
    found = score_audio(rows, sample_rate=16000, metrics="pesq", progress=False, workers=0)
    assert "nan" not in found.table() and "[" not in found.table()
    assert "values of one clip" in found.table()
    value = found.to_dict()["rows"]["noisy"]["pesq"]
    assert value["low"] is value["high"] is None and value["mean"] > 1


def test_without_transcripts_no_recogniser_is_loaded(monkeypatch):
    monkeypatch.setattr(scoring, "make_recogniser", lambda name: pytest.fail("loaded"))
    options = {"sample_rate": 16000, "metrics": ("cer", "si_sdr"), "workers": 0, "progress": False}
    rows = {"original": CLIPS, "noisy": NOISY}
    for texts in (None, [None, "", "..."]):
        found = score_audio(rows, texts=texts, **options)
        assert "CER does not apply to" in found.table() and "no transcript" in found.table()
        cer = values_of(found)["noisy"]["cer"]
        assert (cer.n, cer.n_failed) == (0, 0) and not found.means.failures
    found = score_audio(rows, texts=["eins"] * 3, language="de-AT", asr="moonshine", **options)
    reason = "the recogniser knows en, but the language is de-AT"
    assert f"CER does not apply to 3 of 3 clips: {reason}" in found.table()
    json.dumps(found.to_dict(), allow_nan=False)


def test_clips_in_other_languages_have_no_cer(scores, monkeypatch):
    monkeypatch.setattr(scoring, "make_recogniser", lambda name: Parrot())
    found = score_audio(
        {"original": CLIPS}, texts=TEXTS, language=["English", "Spanish", None],
        sample_rate=16000, metrics="cer", workers=0, progress=False,
    )  # fmt: skip
    assert values_of(found)["original"]["cer"].n == 1
    assert "1 of 3 clips: the recogniser knows en, but the language is Spanish" in found.table()
    assert values_of(scores)["original"]["cer"].n == 2


def test_originals_that_the_recogniser_does_not_hear_warn(monkeypatch):
    monkeypatch.setattr(scoring, "make_recogniser", lambda name: Parrot())
    options = {"sample_rate": 16000, "metrics": "cer", "workers": 0, "progress": False}
    rows = {"original": CLIPS, "noisy": NOISY}
    with pytest.warns(UserWarning, match=r"CER of the originals is 0\.86.*language.*knows en") as w:
        found = score_audio(rows, texts=["xyz uvw"] * 3, **options)
    assert len(w) == 1 and str(w[0].message) in found.to_dict()["notes"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        score_audio(rows, texts=["one two"] * 3, **options)


def test_failures_of_a_recogniser_are_counted(monkeypatch):
    class Deaf(Parrot):
        def transcribe(self, waveform, sample_rate):
            if not waveform.isfinite().all():
                raise RecognitionError("not finite")
            return super().transcribe(waveform, sample_rate)

    monkeypatch.setattr(scoring, "make_recogniser", lambda name: Deaf())
    broken = [CLIPS[0] * math.nan, *CLIPS[1:]]
    rows = {"original": CLIPS, "broken": broken}
    texts = ["one two"] * 3
    found = score_audio(rows, texts=texts, sample_rate=16000, mos="distillmos", progress=False)
    for metric in ("cer", "mos", "pesq"):
        estimate = values_of(found)["broken"][metric]
        assert (estimate.n, estimate.n_failed) == (2, 1)
    assert values_of(found)["broken"]["cer"].mean == 0
    assert {f.reason for f in found.means.failures if f.metric == "cer"} == {"not finite"}
    json.dumps(found.to_dict(), allow_nan=False)


def test_bad_arguments_are_refused():
    with pytest.raises(
        ValueError, match=r"\['pesk'\] \(did you mean pesq\?\): known are cer, dnsmos"
    ):
        score_audio({"a": []}, reference="a", sample_rate=16000, metrics=["pesk"])
    with pytest.raises(ValueError, match="reference row 'b': rows are a"):
        score_audio({"a": CLIPS}, reference="b", sample_rate=16000)
    with pytest.raises(ValueError, match=r"\['pesk'\] \(did you mean pesq\?\): known are"):
        score_audio({"a": CLIPS}, reference="a", sample_rate=16000, metrics="pesq, pesk")
    with pytest.raises(ValueError, match="workers = -1: must be at least 0"):
        score_audio({"a": CLIPS}, reference="a", sample_rate=16000, workers=-1)
    with pytest.raises(ValueError, match=r"mos 'dnsmos'.*: known are auto, squim"):
        score_audio({"a": CLIPS}, reference="a", sample_rate=16000, mos="dnsmos")
    with pytest.raises(ValueError, match="unequal length"):
        score_audio({"a": CLIPS, "b": CLIPS[:2]}, reference="a", sample_rate=16000)


@pytest.mark.slow
def test_embedded_backends_on_real_speech():
    rejected = []
    clips = list(open_corpus(ALLISON, split="test").utterances(16000, rejected=rejected))
    audio = [c.waveform for c in clips]
    noisy = [
        a + 0.1 * torch.randn(a.shape, generator=torch.Generator().manual_seed(0)) for a in audio
    ]
    scores = score_audio(
        {"original": audio, "noisy": noisy}, texts=[c.text for c in clips],
        sample_rate=16000, asr="moonshine", mos="distillmos",
    )  # fmt: skip
    rows = values_of(scores)
    assert rows["original"]["cer"].mean < 0.06
    assert rows["original"]["mos"].mean > 4
    assert rows["noisy"]["mos"].mean < 3
    assert rows["noisy"]["pesq"].mean < 2


def test_backends_say_what_is_done_with_stereo():
    stereo = [torch.cat([clip, 0.5 * clip]) for clip in CLIPS]
    noisy = [torch.cat([clip, 0.5 * clip]) for clip in NOISY]
    options = {"sample_rate": 16000, "metrics": ("pesq", "si_sdr"), "progress": False}
    found = score_audio({"original": stereo, "noisy": noisy}, **options)
    mono = score_audio({"original": CLIPS, "noisy": NOISY}, **options)
    backends = {m.name: m.backend for m in found.means.metrics}
    assert backends["pesq"].endswith(", mean of channels")
    assert backends["si_sdr"].endswith(", channels as one signal")
    assert not any("channels" in m.backend for m in mono.means.metrics)
    for metric, tolerance in (("pesq", 0.02), ("si_sdr", 1e-3)):
        pair = [values_of(scores)["noisy"][metric].mean for scores in (found, mono)]
        assert pair[0] == pytest.approx(pair[1], abs=tolerance)
