"""Recognisers by name: fallbacks, languages, and what they refuse."""

from __future__ import annotations

import json

import pytest

from makers.audio import make_tone
from makers.paths import ALLISON
from makers.speech_models import save_wav2vec2
from tokgen.corpus.listed import open_corpus
from tokgen.metrics import backends
from tokgen.metrics.asr import names
from tokgen.metrics.asr.ctc import Wav2Vec2Recogniser
from tokgen.metrics.asr.names import languages_of, make_recogniser
from tokgen.metrics.cer import edits
from tokgen.metrics.languages import language_code

CLEAN = make_tone(2.0, 0)


def test_unknown_recognisers_are_refused():
    with pytest.raises(ValueError, match="known are auto, wav2vec2, whisper, moonshine"):
        make_recogniser("kaldi")


@pytest.fixture
def wav2vec2_folder(tmp_path):
    return save_wav2vec2(tmp_path)


def test_wav2vec2_loads_from_a_folder(wav2vec2_folder):
    recogniser = make_recogniser(f"wav2vec2:{wav2vec2_folder}")
    assert isinstance(recogniser, Wav2Vec2Recogniser)
    assert str(wav2vec2_folder) in recogniser.backend
    text = recogniser.transcribe(CLEAN, 16000)
    assert set(text) <= set("ABCDEFGH |</unkps>")
    assert text == recogniser.transcribe(CLEAN, 16000)


def test_recognisers_state_their_languages(wav2vec2_folder):
    name = f"wav2vec2:{wav2vec2_folder}"
    assert {languages_of(n) for n in ("auto", "wav2vec2", "moonshine")} == {("en",)}
    assert make_recogniser("moonshine").languages == ("en",)
    assert languages_of(name) == () == make_recogniser(name).languages
    (wav2vec2_folder / "README.md").write_text("---\nlanguage: [de, French]\n---\n# A model\n")
    assert languages_of(name) == ("de", "fr") == make_recogniser(name).languages
    settings = wav2vec2_folder / "tokenizer_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"target_lang": "spa"}))
    assert languages_of(name) == ("es",)
    settings.write_text("[")
    (wav2vec2_folder / "README.md").write_text("---\n: x\n - [\n---\n")
    assert languages_of(name) == ()


@pytest.mark.parametrize("same", ["en", "en-US", "en_GB", "ENG", "English", "English (US)"])
def test_codes_and_names_of_a_language_are_equal(same):
    assert language_code(same) == "en"
    assert language_code("de-AT") == language_code("German") == "de" != language_code(same)
    assert language_code("Klingon") == "klingon"


def test_weights_in_a_pickle_are_not_loaded(wav2vec2_folder):
    (wav2vec2_folder / "model.safetensors").rename(wav2vec2_folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        make_recogniser(f"wav2vec2:{wav2vec2_folder}")


def test_auto_falls_back_if_the_download_breaks(monkeypatch):
    def fail(*args, **kwargs):
        raise OSError("connection lost")

    monkeypatch.setattr(backends, "hub_model_in_reach", lambda name: True)
    monkeypatch.setattr(names, "Wav2Vec2Recogniser", fail)
    with pytest.warns(UserWarning, match="using moonshine"):
        assert make_recogniser("auto").backend.startswith("moonshine")
    with pytest.raises(OSError, match="connection lost"):
        make_recogniser("wav2vec2")


def test_auto_falls_back_with_a_warning(monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr(backends, "hub_model_in_reach", lambda name: False)
    monkeypatch.setattr("tokgen.metrics.asr.names.WAV2VEC2", "nobody/nothing")
    with pytest.warns(UserWarning, match="using moonshine"):
        assert make_recogniser("auto").backend.startswith("moonshine")


def test_moonshine_does_not_remember_the_clips_before() -> None:
    clips = [make_tone(1.5, seed) for seed in range(5)]
    recogniser = make_recogniser("moonshine")
    forwards = [recogniser.transcribe(clip, 16000) for clip in clips]
    backwards = [recogniser.transcribe(clip, 16000) for clip in reversed(clips)][::-1]
    assert forwards == backwards and len(set(forwards)) > 1


def test_moonshine_transcribes_speech():
    clips = list(open_corpus(ALLISON, split="test", max_seconds=4).utterances(16000, rejected=[]))
    recogniser = make_recogniser("moonshine")
    counts = [edits(c.text, recogniser.transcribe(c.waveform, 16000)) for c in clips[:4]]
    assert sum(c.n_edits for c in counts) <= 0.1 * sum(c.n_chars for c in counts)
