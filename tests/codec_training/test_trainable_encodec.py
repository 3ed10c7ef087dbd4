"""EnCodec in training: losses fall, codes of all bandwidths, saving, freezing, errors."""

from __future__ import annotations

import copy

import pytest
import torch
from transformers import EncodecConfig

from makers.audio import make_tone
from makers.codec_training import fit
from makers.recipes import ROOT
from tokgen.codec_training.architectures import load_into, make_trainable
from tokgen.codec_training.discriminators.kinds import check_fits, make_discriminator
from tokgen.codec_training.settings import CodecTrainingSettings
from tokgen.runs.settings import parse_settings
from tokgen.zoo.adapters.encodec import EncodecCodec
from tokgen.zoo.lookup import load_codec

SMALL = {
    "sampling_rate": 16000, "num_filters": 4, "hidden_size": 16, "upsampling_ratios": [8, 5, 4, 2],
    "num_lstm_layers": 1, "codebook_size": 32, "target_bandwidths": [0.25, 0.5, 1.0],
}  # fmt: skip


def make(seed: int = 0):
    torch.manual_seed(seed)
    return make_trainable("encodec", SMALL)


@pytest.fixture(scope="module")
def audio() -> torch.Tensor:
    return torch.cat([make_tone(0.25, seed)[None] for seed in range(6)])


@pytest.fixture(scope="module")
def trained(audio):
    """A codec after 30 steps, and its losses."""
    codec = make()
    losses = fit(codec, audio)
    return codec.eval(), losses


def test_losses_fall(trained, audio):
    codec, losses = trained
    assert sum(losses[-5:]) < 0.5 * sum(losses[:5])
    assert codec(audio).codes.shape == (6, 4, 13)


def test_a_saved_codec_codes_as_in_training_and_goes_on(trained, audio, tmp_path):
    codec, _ = trained
    codec.save(tmp_path)
    saved = load_codec(tmp_path)
    codes = codec(audio[:1]).codes
    assert saved.encode(audio[:1]).equal(codes)
    again = make(seed=1)
    load_into(again, tmp_path)
    for name, value in codec.state_dict().items():
        assert value.equal(again.state_dict()[name]), name
    with torch.no_grad():
        torch.testing.assert_close(again.eval()(audio).waveform, codec(audio).waveform)


def test_codes_of_a_bandwidth_are_a_prefix_of_all(trained, audio):
    model = copy.deepcopy(trained[0]).as_codec().model
    whole = EncodecCodec.from_model(model).encode(audio)
    for bandwidth, n in ((0.25, 1), (0.5, 2), (1.0, 4)):
        codes = EncodecCodec.from_model(model, bandwidth=bandwidth).encode(audio)
        assert codes.equal(whole[:, :n])


def test_each_batch_has_one_of_the_bandwidths(audio):
    codec = make()
    seen = {codec(audio[:2]).codes.shape[1] for _ in range(15)}
    assert seen == {1, 2, 4}


def test_the_quantizer_starts_from_data_and_can_be_frozen(audio):
    codec = make()
    assert codec(audio, quantize=False).codes is None
    left = codec.init_quantizer(audio)
    assert len(left) == 4 and left == sorted(left, reverse=True)
    before = copy.deepcopy(codec.quantizer.state_dict())
    codec.moves_codebooks = False
    codec(audio)
    assert all(v.equal(before[k]) for k, v in codec.quantizer.state_dict().items())
    codec.moves_codebooks = True
    codec(audio)
    assert not all(v.equal(before[k]) for k, v in codec.quantizer.state_dict().items())


def test_the_config_has_the_papers_settings():
    s = parse_settings(CodecTrainingSettings, ROOT / "recipes/train_codec.encodec24k.yaml", [])
    assert (s.weights.time, s.weights.mel, s.weights.adversarial, s.weights.feature) == (
        0.1,
        1,
        3,
        3,
    )
    assert s.balancer and s.adversarial_loss == "hinge2" and s.betas == (0.5, 0.9)
    assert EncodecConfig(**s.model).to_dict() == EncodecConfig().to_dict()
    discriminator = make_discriminator(s.discriminator)
    check_fits(discriminator, 1, len(s.model["target_bandwidths"]))
    assert discriminator.n_bandwidths == 5
