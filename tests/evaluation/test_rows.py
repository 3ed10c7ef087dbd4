"""Scores of rows: references, counts, failures and the JSON form."""

import json
import math

import pytest
import torch

from makers.audio import make_tone
from makers.codecs import make_encodec
from makers.paths import ALLISON
from tokgen.corpus.listed import open_corpus
from tokgen.evaluation import scorer as scoring
from tokgen.evaluation.rows import score_audio, score_codec
from tokgen.evaluation.settings import MetricSettings
from tokgen.metrics.cer import RecognitionError
from tokgen.metrics.si_sdr import si_sdr

CLIPS = [make_tone(s, i) for i, s in enumerate((1.2, 0.9, 1.5))]
NOISY = [c + 0.05 * torch.randn(c.shape, generator=torch.Generator().manual_seed(1)) for c in CLIPS]
TEXTS = ["one two", "three", None]


def values_of(scores):
    """Row name to metric name to estimate."""
    return {row.name: row.values for row in scores.means.rows}


class Parrot:
    """A recogniser that returns the same text for every clip."""

    backend = "parrot"

    def transcribe(self, waveform, sample_rate):
        return "one two"


@pytest.fixture
def scores(monkeypatch):
    monkeypatch.setattr(scoring, "make_recogniser", lambda name: Parrot())
    rows = {"original": CLIPS, "noisy": NOISY}
    metrics = ("cer", "pesq", "si_sdr")
    return score_audio(rows, texts=TEXTS, sample_rate=16000, metrics=metrics, progress=False)


def test_cer_is_pooled_and_clips_without_text_are_counted(scores):
    cer = values_of(scores)["original"]["cer"]
    assert (cer.n, cer.n_failed) == (2, 1)
    assert cer.mean == pytest.approx((0 + 5) / (7 + 5))


def test_reference_metrics_compare_with_the_reference_row(scores):
    rows = values_of(scores)
    assert rows["original"]["pesq"].mean == pytest.approx(4.644, abs=1e-3)
    assert rows["noisy"]["pesq"].mean < 4
    assert rows["original"]["si_sdr"].n_failed == 3  # infinite, which no mean can include
    assert 0 < rows["noisy"]["si_sdr"].mean < 30


def test_json_form_has_all_keys(scores):
    content = json.loads(json.dumps(scores.means.rows_as_dict(), allow_nan=False))
    for row in ("original", "noisy"):
        for metric in ("cer", "pesq", "si_sdr"):
            keys = {"mean", "low", "high", "n", "n_failed", "backend"}
            assert set(content[row][metric]) == keys
    assert content["noisy"]["cer"]["backend"] == "parrot"
    assert content["original"]["si_sdr"]["mean"] is None


def test_table_names_backends_and_failures(scores):
    table = scores.table()
    assert "CER: parrot" in table and "P.862.2" in table
    assert "failed or not measurable in original: cer 1, si_sdr 3" in table
    assert len(scores.per_clip) == 6 and math.isnan(scores.per_clip[2]["edits"])


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
    json.dumps(found.to_dict(), allow_nan=False)


def test_bad_arguments_are_refused():
    with pytest.raises(ValueError, match=r"\['visqol'\]: known are cer, f0, mos, pesq"):
        score_audio({"a": []}, reference="a", sample_rate=16000, metrics=["visqol"])
    with pytest.raises(ValueError, match="reference row 'b': rows are a"):
        score_audio({"a": CLIPS}, reference="b", sample_rate=16000)
    with pytest.raises(ValueError, match=r"\['visqol'\]: known are"):
        score_audio({"a": CLIPS}, reference="a", sample_rate=16000, metrics="pesq, visqol")
    with pytest.raises(ValueError, match="unequal length"):
        score_audio({"a": CLIPS, "b": CLIPS[:2]}, reference="a", sample_rate=16000)


def test_a_codec_on_a_corpus(tiny_codec, tiny_corpus, tmp_path):
    corpus = open_corpus(tiny_corpus, split="train")
    found = score_codec(tiny_codec, corpus, metrics=("pesq", "si_sdr"), progress=False)
    rows = values_of(found.scores)
    assert list(rows) == ["original", "resynthesis"]
    assert rows["original"]["pesq"].n + rows["original"]["pesq"].n_failed == len(corpus)
    assert len(found.codebook_use) == 4 and all(0 < u <= 100 for u in found.codebook_use)
    assert found.n_frames == sum(
        tiny_codec.spec.n_frames(round(e.seconds * 16000)) for e in corpus.entries
    )
    assert "codebook use" in found.table() and found.speed > 1
    json.dumps(found.to_dict(), allow_nan=False)
    (tmp_path / "broken.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no usable clip in .*: 1 rejected"):
        score_codec(tiny_codec, open_corpus(tmp_path), progress=False)


def test_a_codec_and_a_corpus_by_name(tiny_codec, tiny_codec_folder, tiny_corpus):
    options = {"split": "test", "metrics": ("si_sdr",), "workers": 0, "progress": False}
    by_name = score_codec(str(tiny_codec_folder), str(tiny_corpus), device="cpu", **options)
    by_object = score_codec(tiny_codec, open_corpus(tiny_corpus), **options)
    assert by_name.scores.per_clip == by_object.scores.per_clip
    assert by_name.corpus == by_object.corpus and by_name.codec["name"] == "tiny"
    frame = by_name.to_frame()
    assert frame["row"].tolist() == ["original", "resynthesis"]
    assert frame["mean"].dtype == float and frame["n"].tolist() == [0, 2]
    assert frame["n_failed"].tolist() == [2, 0]
    assert by_name._repr_html_().count("<table>") == 1
    assert by_name.table().startswith(by_name.scores.table())


def test_wrong_settings_are_refused_before_anything_is_loaded(tiny_corpus):
    with pytest.raises(ValueError, match=r"\['visqol'\]: known are"):
        score_codec("no codec", tiny_corpus, metrics=["visqol"])
    with pytest.raises(ValueError, match="asr 'whisper': known are auto, wav2vec2, moonshine"):
        score_codec("no codec", tiny_corpus, asr="whisper")
    with pytest.raises(ValueError, match="mos 'squim:x': known are"):
        MetricSettings(mos="squim:x")
    assert MetricSettings(metrics=["pesq, f0", "cer"]).metrics == ["pesq", "f0", "cer"]
    assert MetricSettings(asr="wav2vec2:a/folder").asr == "wav2vec2:a/folder"
    with pytest.raises(ValueError, match="give each once"):
        MetricSettings(metrics=["pesq,pesq"])
    with pytest.raises(ValueError, match="device 'tpu'"):
        score_codec("speech-16k", tiny_corpus, device="tpu")


def test_a_codec_with_side_information(tiny_corpus):
    corpus = open_corpus(tiny_corpus, split="test")
    codec = make_encodec("encodec-48k")
    found = score_codec(codec, corpus, metrics=("si_sdr",), progress=False)
    clips = corpus.utterances(8000, rejected=[])
    expected = [si_sdr(c.waveform, codec.roundtrip(c.waveform[None])[0]) for c in clips]
    scored = [r["si_sdr"] for r in found.scores.per_clip if r["row"] == "resynthesis"]
    assert scored == pytest.approx(expected, abs=1e-3)
    assert found.n_frames == sum(
        codec.spec.n_frames(round(e.seconds * 8000)) for e in corpus.entries
    )


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
