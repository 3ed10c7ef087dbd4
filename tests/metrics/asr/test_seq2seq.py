"""Whisper and Moonshine of transformers: loading, languages, batches and long audio."""

from __future__ import annotations

import pytest
import torch

from makers.audio import make_tone
from makers.speech_models import save_moonshine, save_whisper
from tokgen.metrics.asr.base import RecognitionError
from tokgen.metrics.asr.names import languages_of, make_recogniser

TONE = make_tone(1.0, 0)


@pytest.fixture(scope="module")
def whisper(tmp_path_factory):
    return make_recogniser(f"whisper:{save_whisper(tmp_path_factory.mktemp('m') / 'whisper')}")


def test_whisper_knows_its_languages_and_is_told_them(whisper, monkeypatch):
    assert whisper.languages == ("de", "en") and "whisper (" in whisper.backend
    folder = whisper.backend.removeprefix("whisper (").removesuffix(")")
    assert languages_of(f"whisper:{folder}") == ("de", "en")
    told = []
    generate = whisper.model.generate

    def spy(*args, **options):
        told.append(options)
        return generate(*args, **options)

    monkeypatch.setattr(whisper.model, "generate", spy)
    for language in ("German", "fr", None):
        assert isinstance(whisper.transcribe(TONE, 16000, language), str)
    assert [t.get("language") for t in told] == ["de", None, None]
    assert {t["task"] for t in told} == {"transcribe"}


def test_batches_equal_single_clips(whisper):
    clips = [make_tone(1.0, seed) for seed in range(3)]
    single = [whisper.transcribe(clip, 16000, "en") for clip in clips]
    broken = [*clips, TONE * float("nan")]
    assert whisper.transcribe_batch(broken, 16000, "en") == [*single, None]
    with pytest.raises(RecognitionError, match="NaN"):
        whisper.transcribe(broken[-1], 16000)


def test_long_audio_is_heard_to_its_end(whisper):
    seen = []
    hook = whisper.model.model.encoder.register_forward_hook(
        lambda module, inputs, output: seen.append(1)
    )
    assert isinstance(whisper.transcribe(make_tone(65.0, 1), 16000, "en"), str)
    hook.remove()
    assert len(seen) >= 3  # windows of 30 s


def test_whisper_of_one_language_is_english(tmp_path):
    folder = save_whisper(tmp_path / "whisper-tiny.en", multilingual=False)
    recogniser = make_recogniser(f"whisper:{folder}")
    assert recogniser.languages == ("en",)
    assert isinstance(recogniser.transcribe(TONE, 16000), str)
    assert languages_of("whisper") == () and languages_of("whisper:openai/whisper-tiny.en") == (
        "en",
    )


def test_moonshine_of_the_hub(tmp_path):
    folder = save_moonshine(tmp_path / "moonshine")
    (folder / "README.md").write_text("---\nlanguage: es\n---\n# A model\n")
    recogniser = make_recogniser(f"moonshine:{folder}")
    assert recogniser.languages == ("es",) and "transformers" in recogniser.backend
    clips = [make_tone(1.5, seed) for seed in range(2)]
    single = [recogniser.transcribe(clip, 16000) for clip in clips]
    assert recogniser.transcribe_batch(clips, 16000) == single
    assert max(len(text.split()) for text in single) <= 20  # 13 tokens a second at most
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(OSError, match="safetensors"):
        make_recogniser(f"moonshine:{folder}")


def test_it_runs_where_it_is_moved(whisper):
    whisper.to(torch.device("cpu"))
    assert whisper.model.device.type == "cpu"
