"""DAC in training: weight norm and first weights."""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn
from transformers import DacModel

from makers.audio import codec_tone
from makers.codecs import make_dac
from tokgen.codec_training.idempotence import Reencoder
from tokgen.zoo.adapters.dac_training import (
    apply_weight_norm,
    fold_weight_norm,
    has_weight_norm,
    reset_weights,
)
from tokgen.zoo.lookup import load_codec


def moved_dac():
    """A DAC with weight norm whose directions and norms have moved."""
    codec = make_dac("dac-even")
    codec.prepare_training()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in codec.model.parameters():
            weight.add_(0.02 * torch.randn(weight.shape, generator=generator))
    return codec


@torch.no_grad()
def test_outputs_are_equal_before_and_after() -> None:
    codec = make_dac("dac-even")
    audio = codec_tone(codec, 4000)
    before = codec.decode_latents(codec.dequantize(codec.quantize(codec.encode_latents(audio))))
    apply_weight_norm(codec.model)
    after = codec.decode_latents(codec.dequantize(codec.quantize(codec.encode_latents(audio))))
    torch.testing.assert_close(after, before)

    codec = moved_dac()
    folded = fold_weight_norm(codec.model)
    assert has_weight_norm(codec.model) and not has_weight_norm(folded)
    with torch.enable_grad():  # the same kernels in both cases
        expected, found = (m(audio) for m in (codec.model, folded))
    assert torch.equal(found.audio_values, expected.audio_values)
    assert torch.equal(found.audio_codes, expected.audio_codes)


@torch.no_grad()
def test_copies_are_folded_apart() -> None:
    """torch's `remove_parametrizations` on a copy would break the original."""
    codec = moved_dac()
    audio = codec_tone(codec, 4000)
    before = codec.encode_latents(audio)
    fold_weight_norm(copy.deepcopy(codec.model))
    assert torch.equal(codec.encode_latents(audio), before)


def test_every_convolution_has_it() -> None:
    codec = make_dac("dac-even")
    assert not has_weight_norm(codec.model)
    apply_weight_norm(codec.model)
    apply_weight_norm(codec.model)  # the second call changes nothing
    layers = [m for m in codec.model.modules() if isinstance(m, nn.Conv1d | nn.ConvTranspose1d)]
    assert len(layers) > 20
    for layer in layers:
        norm = layer.parametrizations.weight.original0
        assert norm.numel() == len(layer.weight)  # one for each slice along the first axis
        found = layer.weight.flatten(1).norm(dim=1)
        torch.testing.assert_close(norm.flatten(), found)


def test_a_frozen_encoder_is_saved_as_it_is(tmp_path: Path) -> None:
    codec = make_dac("dac-even")
    before = codec.spec.encoder_hash
    Reencoder(codec, freeze_encoder=True)
    assert has_weight_norm(codec.model.decoder) and not has_weight_norm(codec.model.encoder)
    codec.save_pretrained(tmp_path)
    assert load_codec(tmp_path).spec.encoder_hash == before


def test_tuning_leaves_the_quantizer_as_it_is() -> None:
    codec = make_dac("dac-even")
    before = copy.deepcopy(codec.model.quantizer.state_dict())
    codec.prepare_training()
    assert has_weight_norm(codec.model.encoder) and has_weight_norm(codec.model.decoder)
    found = codec.model.quantizer.state_dict()
    assert list(found) == list(before)
    assert all(torch.equal(found[name], before[name]) for name in before)


@torch.no_grad()
def test_a_saved_dac_has_none(tmp_path) -> None:
    codec = moved_dac()
    codec.save_pretrained(tmp_path / "dac")
    assert has_weight_norm(codec.model)  # training goes on
    saved = load_codec(tmp_path / "dac")
    assert not any("parametrizations" in name for name in saved.model.state_dict())
    DacModel.from_pretrained(tmp_path / "dac")
    audio = codec_tone(codec, 4000)
    torch.testing.assert_close(saved.encode_latents(audio), codec.encode_latents(audio))
    card = (tmp_path / "dac" / "README.md").read_text()
    assert saved.spec.weight_hash in card


def test_first_weights_are_those_of_the_authors_code() -> None:
    """Their truncated normal of 0.02 has no effect: weight norm computes the weight anew."""
    torch.manual_seed(0)
    model = copy.deepcopy(make_dac("dac-even").model)
    reset_weights(model)
    apply_weight_norm(model)
    rows = torch.cat([level.codebook.weight for level in model.quantizer.quantizers])
    assert abs(rows.std().item() - 1) < 0.1  # nn.Embedding's
    conv = model.encoder.block[1].res_unit1.conv1
    bound = (conv.in_channels * conv.kernel_size[0]) ** -0.5  # nn.Conv1d's
    assert 0.95 * bound < conv.weight.abs().max() <= 1.001 * bound
    biases = [m.bias for m in model.modules() if isinstance(m, nn.Conv1d)]
    assert not any(b.any() for b in biases)
