"""WavTokenizer gives the codes and audio of transformers' WavTokenizer."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.library_codecs import make_wavtokenizer
from tokgen.zoo.adapters.wavtokenizer import WavTokenizerCodec
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.transformers_loading import from_transformers


@pytest.fixture(scope="module")
def codec() -> WavTokenizerCodec:
    return make_wavtokenizer()


def tone(n_samples: int) -> Tensor:
    return make_tone(n_samples / 8000, 0, 8000)[None]


@torch.inference_mode()
@pytest.mark.parametrize("n", [1, 2, 39, 40, 41, 9999, 57 * 40])
def test_equals_transformers(codec: WavTokenizerCodec, n: int) -> None:
    waveform = tone(n)
    theirs = codec.model(waveform)
    codes = codec.encode(waveform)
    assert codes.equal(theirs.audio_codes)
    torch.testing.assert_close(codec.decode(codes, n), theirs.audio_values, atol=1e-4, rtol=0)
    assert n < 1000 or theirs.audio_values.std() > 0.001


def test_gradients_reach_the_waveform(codec: WavTokenizerCodec) -> None:
    waveform = tone(1000).requires_grad_()
    codec.encode_latents(waveform).square().sum().backward()
    assert waveform.grad is not None and waveform.grad.abs().sum() > 0


def test_loads_from_a_folder(codec: WavTokenizerCodec, tmp_path: Path) -> None:
    codec.model.save_pretrained(tmp_path / "mine")
    loaded = load_codec(tmp_path / "mine")
    assert isinstance(loaded, WavTokenizerCodec)
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    waveform = tone(3000)
    codes = codec.encode(waveform)
    assert loaded.encode(waveform).equal(codes)
    assert loaded.decode(codes).equal(codec.decode(codes))


def test_numbers_of_the_published_config() -> None:
    config = from_transformers("WavTokenizerModel").config_class().to_dict()
    assert WavTokenizerCodec.numbers(config) == {
        "sample_rate": 24000,
        "hop_length": 600,
        "n_codebooks": 1,
        "codebook_size": 4096,
    }
    with pytest.raises(ValueError, match="the model has one bitrate"):
        WavTokenizerCodec.numbers(config, 0.9)
