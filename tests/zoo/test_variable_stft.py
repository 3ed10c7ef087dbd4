"""The importance network of the STFT codec."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from makers.audio import make_tone
from makers.codecs import make_stft_codec
from tokgen.codec.depth import depth_of
from tokgen.quantizers.settings import VariableSettings
from tokgen.quantizers.variable import VariableQuantized
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.networks.stft import StftCodecModel

SMALL = {"kind": "paper", "widths": [8, 4]}


@pytest.fixture(scope="module")
def codec():
    return make_stft_codec(importance=SMALL)


def test_codes_are_those_of_a_codec_without_one(codec):
    audio = make_tone(1.0, 0)[None]
    plain = make_stft_codec()
    weights = {k: w for k, w in codec.model.state_dict().items() if "importance" not in k}
    plain.model.load_state_dict(weights)
    assert codec.encode(audio).equal(plain.encode(audio))
    latents, importance = codec.model.encode_with_importance(audio)
    assert latents.equal(plain.model.encode_latents(audio))
    assert importance.shape == (1, 50) and importance.min() > 0 and importance.max() < 1


def test_the_importance_of_an_item_does_not_depend_on_its_batch(codec):
    clips = [make_tone(seconds, seed) for seed, seconds in enumerate([0.2, 1.0, 0.61])]
    alone = [codec.model.encode_with_importance(clip[None])[1][0] for clip in clips]
    lengths = [clip.shape[-1] for clip in clips]
    batch = torch.stack([F.pad(clip, (0, max(lengths) - clip.shape[-1])) for clip in clips])
    together = codec.model.encode_with_importance(batch, lengths)[1]
    for one, row in zip(alone, together, strict=True):
        assert row[: len(one)].equal(one)


def test_it_is_saved_with_the_codec(codec, tmp_path):
    audio = make_tone(0.5, 0)[None]
    codec.save_pretrained(tmp_path)
    saved = load_codec(tmp_path).model
    assert saved.config["importance"] == SMALL
    importance = [m.encode_with_importance(audio)[1] for m in (codec.model, saved)]
    assert importance[0].equal(importance[1])
    kept = load_file(tmp_path / "model.safetensors")
    assert "importance.layers.2.weight_g" in kept


@pytest.mark.parametrize("detach", [False, True])
def test_the_importance_trains_the_encoder_unless_detached(codec, detach):
    audio = make_tone(0.4, 0)[None].expand(4, -1, -1)
    _, importance = codec.model.encode_with_importance(audio, detach=detach)
    weights = [codec.model.encoder.embed.weight, codec.model.importance.layers[0].weight_v]
    found = torch.autograd.grad(importance.sum(), weights, allow_unused=True)
    assert (found[0] is None) == detach and found[1].abs().max() > 0


def test_a_training_pass_gives_depth_and_rate(codec):
    audio = torch.stack([make_tone(0.4, seed) for seed in range(4)])
    settings = VariableSettings(full_share=0.25, scales=(1.0, 1.0))
    decoded, result = codec.model(audio, variable=settings)
    assert decoded.shape == audio.shape and isinstance(result, VariableQuantized)
    importance = codec.model.encode_with_importance(audio)[1]
    torch.testing.assert_close(result.importance, importance)
    assert result.depth[:3].equal(depth_of(importance[:3], 1.0, 4)) and result.depth[3].eq(4).all()
    codes = codec.model.quantizer.decode(result.codes, result.depth)
    torch.testing.assert_close(result.quantized, codes)


def test_a_causal_codec_has_none():
    with pytest.raises(ValueError, match="importance with causal = True: the network looks ahead"):
        StftCodecModel(causal=True, importance=SMALL)
