"""DAC with an importance network."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import DacConfig, DacModel

from makers.audio import make_tone
from tokgen.quantizers.residual import quantize_levels
from tokgen.zoo.adapters.dac import DacCodec, quantize_through
from tokgen.zoo.adapters.dac_variable import VariableDac, residual_levels
from tokgen.zoo.lookup import load_codec

SMALL = {
    "encoder_hidden_size": 8, "decoder_hidden_size": 32, "downsampling_ratios": [4, 8],
    "upsampling_ratios": [8, 4], "n_codebooks": 4, "codebook_size": 32, "codebook_dim": 4,
    "hidden_size": 32, "sampling_rate": 16000, "importance": {"kind": "paper", "widths": [8, 4]},
}  # fmt: skip


@pytest.fixture(scope="module")
def model() -> VariableDac:
    torch.manual_seed(0)
    return VariableDac(DacConfig(**SMALL)).eval()


def test_codes_are_those_of_a_plain_dac(model, tmp_path):
    DacCodec.from_model(model, "variable").save_pretrained(tmp_path)
    codec = load_codec(tmp_path)
    assert isinstance(codec.model, VariableDac)
    plain = DacCodec.from_model(DacModel.from_pretrained(tmp_path), "plain")
    audio = make_tone(1.0, 0)[None]
    codes = codec.encode(audio)
    assert codes.equal(plain.encode(audio))
    with torch.no_grad():
        latents, importance = codec.model.encode_with_importance(audio)
        assert latents.equal(model.encoder(audio))
        assert importance.equal(model.encode_with_importance(audio)[1])
    assert importance.shape == (1, 500)
    settings = json.loads((tmp_path / "config.json").read_text())
    assert settings["importance"] == SMALL["importance"]


def test_its_levels_quantize_as_transformers_does(model):
    latents = torch.randn(2, 32, 20, generator=torch.Generator().manual_seed(0))
    theirs = quantize_through(model.quantizer, latents)
    ours = quantize_levels(residual_levels(model.quantizer), latents, torch.ones(2, 4, 20))
    assert ours.codes.equal(theirs.codes)
    for name in ("quantized", "projected_latents", "commitment_loss", "codebook_loss"):
        torch.testing.assert_close(getattr(ours, name), getattr(theirs, name))


@pytest.mark.parametrize("wrong", [5, {"kind": "huge"}, {"wide": 3}])
def test_wrong_settings_of_the_network(wrong, model, tmp_path):
    DacCodec.from_model(model, "variable").save_pretrained(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"importance": wrong}))
    with pytest.raises(ValueError, match=r"config\.json"):
        load_codec(tmp_path)
