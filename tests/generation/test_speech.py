"""Speech from text: the same in any company, saved and loaded, and what is refused."""

from __future__ import annotations

import pytest
import torch

from tokgen.generation.settings import SamplingSettings
from tokgen.generation.speech import Speaker
from tokgen.modelling.settings import ModelSettings
from tokgen.modelling.text.model import TextModel
from tokgen.modelling.text.symbols import Symbols
from tokgen.training.text_frames import speaking_transformer
from tokgen.zoo.stft import StftCodec

FEW = SamplingSettings(steps=(2, 1))
TEXTS = ["one two", "a", "three, four."]


@pytest.fixture(scope="module")
def speaker(tiny_codec: StftCodec) -> Speaker:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        names = Symbols.of_texts(["abcdefghijklmnopqrstuvwxyz"]).names
        text = TextModel(symbols=names, dim=16, encoder_depth=1, decoder_depth=1, kernel=3).eval()
        text.duration_head.bias.data.fill_(1.5)  # about three frames each
        sizes = ModelSettings(dim=32, depth=1, heads=2)
        return Speaker(speaking_transformer(tiny_codec, text, sizes).eval(), text)


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
