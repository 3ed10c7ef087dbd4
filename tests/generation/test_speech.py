"""Speech from text: the same in any company, saved and loaded, and what is refused."""

from __future__ import annotations

import pytest

from makers.audio import make_tone
from makers.generators import make_generator, make_speaker
from tokgen.generation.generate import generate
from tokgen.generation.settings import SamplingSettings
from tokgen.generation.speech import Speaker
from tokgen.modelling.text.model import TextModel
from tokgen.modelling.text.symbols import Symbols
from tokgen.zoo.stft import StftCodec

FEW = SamplingSettings(steps=(2, 1))
TEXTS = ["one two", "a", "three, four."]


@pytest.fixture(scope="module")
def speaker(tiny_codec: StftCodec) -> Speaker:
    return make_speaker(tiny_codec)


def test_a_text_sounds_the_same_alone(speaker, tiny_codec) -> None:
    together = speaker.speak(tiny_codec, TEXTS, FEW, seed=1)
    for i, text in enumerate(TEXTS):
        [alone] = speaker.speak(tiny_codec, [text], FEW, seed=1, item_ids=[i])
        assert alone.codes.equal(together[i].codes)
        n_frames = int(speaker.text.durations(text).sum())
        assert alone.codes.shape == (tiny_codec.spec.n_codebooks, n_frames)
        assert alone.waveform.shape == (1, n_frames * tiny_codec.spec.hop_length)
    [slow] = speaker.speak(tiny_codec, TEXTS[:1], FEW, speed=0.5)
    assert slow.codes.shape[1] > 1.5 * together[0].codes.shape[1]
    other = speaker.speak(tiny_codec, ["one too"], FEW, seed=1)
    assert not other[0].codes.equal(together[0].codes)


def test_a_saved_speaker_says_the_same(speaker, tiny_codec, tmp_path) -> None:
    voices = tmp_path / "voices"
    speaker.save_pretrained(voices / "mine")
    made = speaker.speak(tiny_codec, TEXTS[:1], FEW)[0].codes
    for name, hub in (
        (tmp_path / "voices" / "mine", {}),
        (tmp_path / "voices", {"subfolder": "mine"}),
    ):
        again = Speaker.from_pretrained(name, **hub)
        assert again.speak(tiny_codec, TEXTS[:1], FEW)[0].codes.equal(made)
    card = (voices / "mine" / "README.md").read_text()
    assert "speaker.speak(codec" in card and "| text, 63 values per frame |" in card
    with pytest.raises(FileNotFoundError, match="text holds no model"):
        speaker.model.save_pretrained(tmp_path / "plain")
        Speaker.from_pretrained(tmp_path / "plain")


def test_what_cannot_be_said_is_refused(speaker, tiny_codec) -> None:
    with pytest.raises(ValueError, match="there is nothing to say"):
        speaker.speak(tiny_codec, ["..."], FEW)
    other = TextModel(symbols=Symbols.of_texts(["ab"]).names, dim=16)
    with pytest.raises(ValueError, match="use the two of one training"):
        Speaker(speaker.model, other)


def test_generate_speaks_a_text(
    speaker, tiny_codec, tiny_codec_folder, tmp_path, monkeypatch
) -> None:
    monkeypatch.setenv("TOKGEN_ZOO", str(tiny_codec_folder.parent))
    speaker.save_pretrained(tmp_path / "run" / "model")
    options = {"text": TEXTS[0], "speed": 0.8, "settings": FEW, "seed": 4}
    made = generate(tmp_path / "run", **options)  # the folder of a run
    for model in (tmp_path / "run" / "model", speaker):
        assert generate(model, tiny_codec, **options).codes.equal(made.codes)
    [direct] = speaker.speak(tiny_codec, TEXTS[:1], FEW, speed=0.8, seed=4, item_ids=[0])
    assert direct.codes.equal(made.codes) and direct.waveform.equal(made.waveform)
    plain = generate(speaker, tiny_codec, text=TEXTS[0], settings=FEW)
    assert plain.codes.shape[1] < made.codes.shape[1]
    long = generate(
        speaker, tiny_codec, text="one two " * 8, settings=FEW, window_seconds=0.6,
        overlap_seconds=0.2,
    )  # fmt: skip
    assert long.codes.shape[1] > 3 * 30  # several windows


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"text": "a", "like": make_tone(0.3, 0)}, "text= with audio: a text is spoken alone"),
        ({"text": "a", "vary": make_tone(0.3, 0)}, "text= with audio"),
        ({"text": " "}, "text = ' ': there is nothing to say"),
        ({"text": "a", "speed": 9}, "speed = 9: must be between 0.25 and 4"),
        ({"like": make_tone(0.3, 0), "speed": 1}, "speed= without text="),
        ({"like": make_tone(0.3, 0)}, "it speaks text .give text=, --text"),
        ({}, "give one of text=, like=, prompt=, infill= and vary="),
    ],
)
def test_wrong_requests_are_refused(speaker, tiny_codec, options, message) -> None:
    with pytest.raises(ValueError, match=message):
        generate(speaker, tiny_codec, settings=FEW, **options)


def test_models_that_do_not_speak_are_named(tiny_codec, tmp_path) -> None:
    model = make_generator(tiny_codec)
    with pytest.raises(ValueError, match="has no text model: pass a Speaker, or a name"):
        generate(model, tiny_codec, text="a")
    model.save_pretrained(tmp_path / "plain")
    with pytest.raises(FileNotFoundError, match="does not speak: it has no text model in text/"):
        generate(tmp_path / "plain", tiny_codec, text="a")
