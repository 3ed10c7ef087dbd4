"""Scores of codecs on a corpus: rows, names, rates and arguments."""

import json

import pytest
import torch

from makers.audio import make_tone
from makers.codecs import make_encodec, make_variable
from makers.continuous import make_continuous
from tokgen.audio.files import write_audio
from tokgen.codec.depth import stream_bits
from tokgen.corpus.listed import open_corpus
from tokgen.evaluation import codec_scores
from tokgen.evaluation import scorer as scoring
from tokgen.evaluation.codec_scores import score_codec
from tokgen.evaluation.settings import MetricSettings
from tokgen.metrics.codebook import codebook_use, live_codes
from tokgen.metrics.si_sdr import si_sdr


def values_of(scores):
    """Row name to metric name to estimate."""
    return {row.name: row.values for row in scores.means.rows}


def test_a_codec_on_a_corpus(tiny_codec, tiny_corpus, tmp_path):
    corpus = open_corpus(tiny_corpus, split="train")
    found = score_codec(tiny_codec, corpus, metrics=("pesq", "si_sdr"), progress=False)
    rows = values_of(found.scores)
    assert list(rows) == ["original", "tiny decoded"]
    assert rows["original"]["pesq"].n + rows["original"]["pesq"].n_failed == len(corpus)
    [measures] = found.codecs
    assert len(measures.codebook_use) == 4 and all(0 < u <= 100 for u in measures.codebook_use)
    assert measures.n_frames == sum(
        tiny_codec.spec.n_frames(round(e.seconds * 16000)) for e in corpus.entries
    )
    assert "tiny: codebook use" in found.table() and measures.speed > 1
    json.dumps(found.to_dict(), allow_nan=False)
    (tmp_path / "broken.wav").write_bytes(b"")
    with pytest.raises(ValueError, match=r"no usable clip in .*: .*broken.wav: empty file"):
        score_codec(tiny_codec, open_corpus(tmp_path), progress=False)


def test_a_variable_bitrate_counts_live_codes_and_the_depth(tiny_codec, tiny_corpus):
    codec = make_variable(1.0)
    corpus = open_corpus(tiny_corpus, split="test")
    options = {"metrics": ("si_sdr",), "workers": 0, "progress": False}
    found = score_codec([tiny_codec, codec], corpus, **options)
    fixed, varying = found.codecs
    assert fixed.kbps == pytest.approx(tiny_codec.spec.bitrate / 1000)
    waveforms = [u.waveform for u in corpus.utterances(16000, rejected=[])]
    encoded = [codec.encode_with_side(w[None]) for w in waveforms]
    bits = sum(stream_bits(e.codes.shape[-1], 4, codec.spec, e.depth[0]) for e in encoded)
    assert varying.kbps == pytest.approx(bits * 50 / varying.n_frames / 1000)
    live = [live_codes(e.codes[0], e.depth[0]) for e in encoded]
    assert varying.codebook_use == pytest.approx(codebook_use(live, 60).tolist())
    assert f"stft-variable: {varying.kbps:.3f} kbps" in found.table()


def test_a_codec_and_a_corpus_by_name(tiny_codec, tiny_codec_folder, tiny_corpus):
    options = {"split": "test", "metrics": ("si_sdr",), "workers": 0, "progress": False}
    by_name = score_codec(str(tiny_codec_folder), str(tiny_corpus), device="cpu", **options)
    by_object = score_codec(tiny_codec, open_corpus(tiny_corpus), **options)
    assert by_name.scores.per_clip == by_object.scores.per_clip
    assert by_name.corpus == by_object.corpus and by_name.codecs[0].codec["name"] == "tiny"
    frame = by_name.to_frame()
    assert frame["row"].tolist() == ["original", "tiny decoded"]
    assert frame["mean"].dtype == float and frame["n"].tolist() == [0, 2]
    assert frame["n_failed"].tolist() == [0, 0]
    assert by_name._repr_html_().count("<table>") == 1
    assert by_name.table().startswith(by_name.scores.table())


def test_codecs_without_codes(tiny_codec, tiny_corpus, tmp_path):
    corpus = open_corpus(tiny_corpus, split="test")
    options = {"metrics": ("si_sdr",), "workers": 0, "progress": False}
    make_continuous().save_pretrained(tmp_path / "mine")
    found = score_codec(
        [tiny_codec, str(tmp_path / "mine"), "mp3:24", "opus:12"], corpus, **options
    )
    rows = values_of(found.scores)
    assert list(rows)[1:] == [f"{n} decoded" for n in ("tiny", "mine", "mp3:24", "opus:12")]
    codec = make_continuous()
    clips = [u.waveform for u in corpus.utterances(16000, rejected=[])]
    scored = [r["si_sdr"] for r in found.scores.per_clip if r["row"] == "mine decoded"]
    assert scored == [si_sdr(w, codec.roundtrip(w[None])[0]) for w in clips]
    mine, mp3, opus = found.codecs[1:]
    assert (mine.codebook_use, mine.n_frames, mine.kbps) == ([], 0, 6.4)
    assert mine.codec == {**codec.spec.as_dict(), "name": "mine"}
    assert mp3.codec["sample_rate"] == 16000  # that of the corpus
    assert (mp3.kbps, opus.kbps) == (24, 12)
    table = found.table()
    assert "mine: 6.400 kbps, float16 latents\n" in table and "tiny: codebook use" in table
    assert "mp3:24: 24.000 kbps, as requested\n" in table and "mine: codebook use" not in table
    json.dumps(found.to_dict(), allow_nan=False)
    with pytest.raises(TypeError, match="codec is None"):
        score_codec(None, corpus)


def test_a_stereo_codec_is_scored_in_stereo(tiny_codec, tmp_path):
    left, right = make_tone(1.5, 1), make_tone(1.5, 2)
    write_audio(tmp_path / "a.wav", torch.cat([left, right]), 16000)
    write_audio(tmp_path / "b.wav", left, 16000)
    corpus, stereo = open_corpus(tmp_path), make_encodec("encodec-48k")
    options = {"metrics": ("pesq", "si_sdr"), "workers": 0, "progress": False}
    found = score_codec([tiny_codec, stereo], corpus, **options)
    stereo_row = "encodec-48k decoded"
    a, b = (u.waveform for u in corpus.utterances(8000, rejected=[], channels=2))
    wanted = [si_sdr(x, stereo.roundtrip(x[None])[0]) for x in (a, b)]
    assert [r["si_sdr"] for r in found.scores.per_clip if r["row"] == stereo_row] == wanted
    assert (len(a), len(b)) == (2, 1)
    backends = {m.name: m.backend for m in found.scores.means.metrics}
    assert backends["pesq"].endswith(", mean of channels")
    assert backends["si_sdr"].endswith(", channels as one signal")
    mono = score_codec(tiny_codec, corpus, **options)
    alone = [r for r in mono.scores.per_clip if r["row"] == "tiny decoded"]
    assert alone == [r for r in found.scores.per_clip if r["row"] == "tiny decoded"]
    assert not any("channels" in m.backend for m in mono.scores.means.metrics)


def test_several_codecs_have_a_row_each(tiny_codec, tiny_corpus):
    corpus = open_corpus(tiny_corpus, split="test")
    other = make_encodec("encodec-48k")  # at 8 kHz, with side information
    options = {"metrics": ("pesq", "si_sdr"), "workers": 0, "progress": False}
    found = score_codec([tiny_codec, other], corpus, **options)
    rows = found.scores.means.rows
    assert [(row.name, row.kind, row.codec) for row in rows] == [
        ("original", "original", None),
        ("tiny decoded", "resynthesis", "tiny"),
        (f"{other.spec.name} decoded", "resynthesis", other.spec.name),
    ]
    assert [c.codec["name"] for c in found.codecs] == ["tiny", other.spec.name]
    for codec in (tiny_codec, other):  # each as if it was scored alone
        alone = score_codec(codec, corpus, **options)
        name = f"{codec.spec.name} decoded"
        assert values_of(found.scores)[name] == values_of(alone.scores)[name]
    table = found.table()
    assert table.count("\noriginal ") == 1 and "SI-SDR at the rate of each codec" in table
    for name in ("tiny", other.spec.name):
        assert f"{name}: codebook use" in table and f"{name}: encode + decode" in table
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert list(content["scores"]) == [row.name for row in rows]
    assert [c["row"] for c in content["codecs"]] == [row.name for row in rows[1:]]
    assert content["failures"] == found.scores.means.failures_as_dict()


def test_a_codec_given_twice_is_refused(tiny_codec, tiny_codec_folder, tiny_corpus, monkeypatch):
    monkeypatch.setattr(codec_scores, "as_corpus", lambda *a, **k: pytest.fail("opened"))
    for codecs in (["no/codec", "speech-16k", "no/codec"], [tiny_codec, str(tiny_codec_folder)]):
        with pytest.raises(ValueError, match=r"codec (no/codec|tiny) is given twice: give each"):
            score_codec(codecs, tiny_corpus, progress=False)
    with pytest.raises(ValueError, match="no codec: give at least one"):
        score_codec([], tiny_corpus)


def test_folders_of_one_name_are_named_by_their_paths(tiny_codec, tiny_corpus, tmp_path):
    folders = [str(tmp_path / run / "codec") for run in ("a", "b")]
    for folder in folders:
        tiny_codec.save_pretrained(folder)
    options = {"metrics": ("si_sdr",), "workers": 0, "progress": False}
    found = score_codec(folders, open_corpus(tiny_corpus, split="test"), device="cpu", **options)
    assert [codec.codec["name"] for codec in found.codecs] == folders
    assert list(values_of(found.scores)) == ["original", *(f"{f} decoded" for f in folders)]


def test_failures_name_the_clips_of_the_corpus(tiny_codec, tmp_path):
    for name, audio in (("good", make_tone(1.0, 0)), ("brief", make_tone(0.2, 0))):
        write_audio(tmp_path / f"{name}.wav", audio, 16000)
    options = {"metrics": ("pesq", "cer"), "workers": 0, "progress": False}
    found = score_codec(tiny_codec, tmp_path, **options)
    reason = "shorter than 0.25 s, which PESQ needs"
    assert found.to_dict()["failures"] == [
        {"clip": "brief", "row": row, "metric": "pesq", "reason": reason}
        for row in ("original", "tiny decoded")
    ]
    table = found.table()
    assert f"pesq of brief in original, tiny decoded: {reason}" in table
    assert "CER does not apply to 2 of 2 clips: no transcript" in table


def test_the_language_of_the_corpus_decides_on_cer(tiny_codec, tmp_path, monkeypatch):
    for name in "ab":
        write_audio(tmp_path / f"{name}.wav", make_tone(0.6, 0), 16000)
    table = tmp_path / "metadata.csv"
    table.write_text("file_name,text,language\na.wav,hallo,German\nb.wav,hola,\n")
    monkeypatch.setattr(scoring, "make_recogniser", lambda name: pytest.fail("loaded"))
    options = {"metrics": "cer", "asr": "moonshine", "workers": 0, "progress": False}
    found = score_codec(tiny_codec, tmp_path, language="es", **options)
    for language in ("German", "es"):
        reason = f"the recogniser knows en, but the language is {language}"
        assert f"CER does not apply to 1 of 2 clips: {reason}" in found.table()


def test_wrong_settings_are_refused_before_anything_is_loaded(tiny_corpus):
    with pytest.raises(ValueError, match=r"\['polqa'\]: known are"):
        score_codec("no codec", tiny_corpus, metrics=["polqa"])
    with pytest.raises(
        ValueError, match="asr 'kaldi': known are auto, wav2vec2, whisper, moonshine"
    ):
        score_codec("no codec", tiny_corpus, asr="kaldi")
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
    scored = [r["si_sdr"] for r in found.scores.per_clip if r["row"] == "encodec-48k decoded"]
    assert scored == pytest.approx(expected, abs=1e-3)
    assert found.codecs[0].n_frames == sum(
        codec.spec.n_frames(round(e.seconds * 8000)) for e in corpus.entries
    )


def test_clips_out_of_reach_of_the_bitrate_fail_by_name(tiny_codec, tiny_corpus):
    codec = make_variable(None).with_rate(bitrate=0.31)
    options = {"workers": 0, "progress": False, "clips": 4}
    found = score_codec([tiny_codec, codec], tiny_corpus, metrics=["cer", "si_sdr"],
                        asr="moonshine", language="de", **options)  # fmt: skip
    row = "stft-variable decoded"
    failures = [f for f in found.to_dict()["failures"] if f["row"] == row]
    assert failures and all(f["metric"] == "si_sdr" for f in failures)  # CER does not apply
    assert all("bitrate = 0.31 kbps" in f["reason"] for f in failures)
    [_, measures] = found.codecs
    assert measures.n_lost == len(failures) < 4
    estimate = values_of(found.scores)[row]["si_sdr"]
    assert (estimate.n, estimate.n_failed) == (4 - len(failures), len(failures))
    [difference] = found.scores.means.differences  # over the clips that both have
    assert (difference.row, difference.than) == (row, "tiny decoded")
    assert (difference.estimate.n, difference.estimate.n_failed) == (estimate.n, estimate.n_failed)
    assert f"failed in {row}: si_sdr {len(failures)}" in found.table()
    hopeless = make_variable(None).with_rate(bitrate=0.2955)
    none = score_codec(hopeless, tiny_corpus, metrics=["si_sdr"], **options)
    assert values_of(none.scores)["stft-variable decoded"]["si_sdr"].n_failed == 4
    json.dumps(none.to_dict(), allow_nan=False)
