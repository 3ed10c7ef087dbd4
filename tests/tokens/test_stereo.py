"""Token datasets of stereo audio."""

from __future__ import annotations

import json

import pytest
import torch

import tokgen.tokens.engines.job
from makers.audio import make_tone
from makers.codecs import make_encodec
from tokgen.audio.files import read_audio, write_audio
from tokgen.corpus.listed import open_corpus
from tokgen.tokens.columns import sides_of
from tokgen.tokens.conditioning import Conditioning, ConditioningSettings
from tokgen.tokens.dataset import load_tokens
from tokgen.tokens.provenance import PROVENANCE
from tokgen.tokens.tokenizing import tokenize_corpus

RATE = 8000


@pytest.fixture(scope="module")
def codec():
    return make_encodec("encodec-48k")


@pytest.fixture
def folder(tmp_path):
    """Two stereo clips and a mono one."""
    for seed, seconds in enumerate((0.9, 2.3, 1.4)):
        both = torch.cat([make_tone(seconds, seed, RATE), 0.4 * make_tone(seconds, seed + 5, RATE)])
        write_audio(tmp_path / f"clips/train/{seed}.wav", both[: 1 + (seed < 2)], RATE)
    return tmp_path / "clips"


@pytest.mark.parametrize("long_seconds", [60.0, 1.0])  # whole, and in blocks
def test_a_stereo_codec_gets_both_channels(codec, folder, tmp_path, monkeypatch, long_seconds):
    monkeypatch.setattr(tokgen.tokens.engines.job, "LONG_SECONDS", long_seconds)
    settings = ConditioningSettings.for_codec(codec.spec)
    options = {"workers": 1, "progress": False}
    tokenize_corpus(open_corpus(folder), codec, tmp_path / "tokens", **options)
    rows = load_tokens(tmp_path / "tokens").splits["train"]
    assert len(rows) == 3
    for row, side in zip(rows, sides_of(rows, ["scales"]), strict=True):
        audio, _ = read_audio(folder / f"{row['id']}.wav", channels=2)
        encoded = codec.encode_with_side(audio[None])
        assert torch.as_tensor(row["codes"]).T.equal(encoded.codes[0])
        torch.testing.assert_close(torch.as_tensor(side["scales"]), encoded.side["scales"][0])
        wanted = Conditioning(settings)(audio.mean(0, keepdim=True)[None])[0].T.half()
        torch.testing.assert_close(torch.as_tensor(row["mfcc"]).half(), wanted, atol=0.1, rtol=0.01)


def test_rows_of_mixed_audio_are_not_joined_with_rows_of_both_channels(codec, folder, tmp_path):
    """A dataset from before has no channels, and its audio was mixed."""
    options = {"workers": 1, "progress": False}
    tokenize_corpus(open_corpus(folder), codec, tmp_path / "tokens", **options)
    assert load_tokens(tmp_path / "tokens").provenance.channels == 2
    file = tmp_path / "tokens" / PROVENANCE
    content = json.loads(file.read_text())
    del content["channels"]
    file.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=r"channels: (2 → 1|1 → 2)"):
        tokenize_corpus(open_corpus(folder), codec, tmp_path / "tokens", **options)
