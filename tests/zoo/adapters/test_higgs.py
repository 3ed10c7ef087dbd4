"""Higgs Audio v2's tokenizer gives the codes and audio of transformers'."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

from makers.audio import make_tone
from makers.library_codecs import make_higgs
from tokgen.quantizers.beam import path_error
from tokgen.zoo.adapters.higgs import HiggsCodec
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.transformers_loading import from_transformers

HOP = 960


@pytest.fixture(scope="module")
def codec() -> HiggsCodec:
    return make_higgs()


def tone(n_samples: int) -> Tensor:
    return make_tone(n_samples / 12000, 0, 12000)[None]


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [1, 2, 31])
@pytest.mark.parametrize(("bandwidth", "n_levels"), [(0.13, 2), (None, 4)])
def test_equals_transformers(bandwidth: float | None, n_levels: int, n_frames: int) -> None:
    codec = make_higgs(bandwidth)
    waveform = tone(n_frames * HOP)
    theirs = codec.model.encode(waveform, bandwidth).audio_codes
    codes = codec.encode(waveform)
    assert codes.shape == (1, n_levels, n_frames)
    assert codes.equal(theirs)
    audio = codec.model.decode(theirs).audio_values
    assert audio.std() > 0.001
    torch.testing.assert_close(codec.decode(codes), audio, atol=1e-4, rtol=0)


def test_gradients_pass_the_frozen_semantic_model() -> None:
    codec = make_higgs()
    width = codec.model.config.acoustic_model_config.hidden_size
    codec.model.fc.weight.data[:, :width] = 0
    waveform = tone(3 * HOP).requires_grad_()
    codec.encode_latents(waveform).square().sum().backward()
    assert waveform.grad is not None and waveform.grad.abs().sum() > 0


@torch.inference_mode()
def test_beam_search_knows_the_projections(codec: HiggsCodec) -> None:
    latents = codec.encode_latents(tone(20 * HOP))
    levels, frames = codec.search_levels(), latents[0].T
    greedy = codec.quantize(latents)
    residual = latents - codec.dequantize(greedy)
    found = path_error(levels, frames, greedy[0].T, "latent")
    torch.testing.assert_close(found, residual[0].square().sum(0), atol=1e-4, rtol=1e-4)
    searched = codec.with_beam(8).quantize(latents)
    better = path_error(levels, frames, searched[0].T, "latent")
    assert (better <= found + 1e-5).all() and better.sum() < found.sum()


def test_loads_with_the_requested_bandwidth(codec: HiggsCodec, tmp_path: Path) -> None:
    codec.model.save_pretrained(tmp_path / "mine")
    loaded = load_codec(tmp_path / "mine")
    assert isinstance(loaded, HiggsCodec)
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    waveform = tone(3 * HOP)
    codes = codec.encode(waveform)
    assert loaded.encode(waveform).equal(codes)
    low = HiggsCodec.from_pretrained(tmp_path / "mine", bandwidth=0.13)
    assert low.encode(waveform).equal(codes[:, :2])


def test_branches_must_agree_on_the_frame() -> None:
    model = make_higgs().model
    model.config.semantic_sample_rate = 6000
    with pytest.raises(ValueError, match="a frame every 640 samples, the acoustic one every 960"):
        HiggsCodec.from_model(model)


def test_numbers_of_a_config() -> None:
    config_class = from_transformers("HiggsAudioV2TokenizerModel").config_class
    strides = [8, 5, 4, 2, 3]
    acoustic = {"model_type": "dac", "downsampling_ratios": strides, "upsampling_ratios": strides}
    config = config_class(acoustic_model_config=acoustic, target_bandwidths=[0.5, 1, 1.5, 2])
    assert HiggsCodec.numbers(config.to_dict()) == {
        "sample_rate": 24000,
        "hop_length": 960,
        "n_codebooks": 8,
        "codebook_size": 1024,
    }
