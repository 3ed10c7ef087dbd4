"""Weights in 8 bits."""

from __future__ import annotations

import pytest
import torch
from safetensors.torch import load_file, save_file

from makers.codecs import make_stft_codec
from tokgen.nn.eight_bits import to_eight_bits
from tokgen.nn.shared import share_weights
from tokgen.zoo.networks.stft import StftCodecModel


@pytest.fixture
def folder(tmp_path):
    make_stft_codec().save_pretrained(tmp_path / "codec")
    return tmp_path / "codec"


def test_each_row_keeps_its_largest_weight_and_errs_by_half_a_step(folder):
    before = StftCodecModel.from_pretrained(folder).state_dict()
    saved = to_eight_bits(folder)
    after = StftCodecModel.from_pretrained(folder).state_dict()
    stored = load_file(folder / "model.safetensors")
    assert saved > 0 and stored.keys() > after.keys()
    packed = [name for name, weight in stored.items() if weight.dtype == torch.int8]
    assert packed and before.keys() == after.keys()
    for name, weight in before.items():
        if name not in packed:
            torch.testing.assert_close(after[name], weight, atol=1e-3, rtol=1e-3)
            continue
        rows, found = weight.flatten(1), after[name].flatten(1)
        step = rows.abs().amax(1, keepdim=True) / 127
        assert ((rows - found).abs() <= 0.51 * step + 1e-7).all(), name
        assert stored[name].flatten(1).abs().amax(1).min() >= 126


def test_converting_twice_changes_nothing(folder):
    to_eight_bits(folder)
    first = (folder / "model.safetensors").read_bytes()
    assert to_eight_bits(folder) == 0
    assert (folder / "model.safetensors").read_bytes() == first


def test_a_row_of_zeros_stays_zero(folder):
    path = folder / "model.safetensors"
    state = load_file(path)
    name = "decoder.head.weight"
    state[name] = torch.full_like(state[name], 1e-3)
    state[name][0] = 0
    save_file(state, path, metadata={"format": "pt"})
    to_eight_bits(folder)
    after = StftCodecModel.from_pretrained(folder).state_dict()[name]
    assert not after[0].any()
    torch.testing.assert_close(after[1:], state[name][1:], rtol=1e-2, atol=0)


def test_weights_in_8_bits_can_be_shared(folder, tmp_path):
    to_eight_bits(folder)
    other = tmp_path / "other"
    StftCodecModel.from_pretrained(folder).save_pretrained(other)
    state = load_file(folder / "model.safetensors")
    state["decoder.head.bias"] += 1
    save_file(state, other / "model.safetensors", metadata={"format": "pt"})
    want = StftCodecModel.from_pretrained(other).state_dict()
    share_weights(other, folder)
    assert load_file(other / "model.safetensors").keys() == {"decoder.head.bias"}
    found = StftCodecModel.from_pretrained(other).state_dict()
    assert all(found[name].equal(weight) for name, weight in want.items())
    with pytest.raises(ValueError, match="convert before it shares"):
        to_eight_bits(other)


@pytest.mark.parametrize("part", ["", ".scale8"])
def test_a_weight_and_its_scales_are_shared_together(part, folder, tmp_path):
    to_eight_bits(folder)
    state = load_file(folder / "model.safetensors")
    other = tmp_path / "other"
    StftCodecModel.from_pretrained(folder).save_pretrained(other)
    state["decoder.head.weight" + part] = state["decoder.head.weight" + part].flip(0).contiguous()
    save_file(state, other / "model.safetensors", metadata={"format": "pt"})
    want = StftCodecModel.from_pretrained(other).state_dict()
    share_weights(other, folder)
    assert len(load_file(other / "model.safetensors")) == 2
    found = StftCodecModel.from_pretrained(other).state_dict()
    assert all(found[name].equal(weight) for name, weight in want.items())


def test_weights_that_cannot_be_written_stay(folder, monkeypatch):
    def fail(tensors, path, metadata):
        path.write_bytes(b"half")
        raise OSError("no space left")

    before = (folder / "model.safetensors").read_bytes()
    monkeypatch.setattr("tokgen.nn.shared.save_file", fail)
    with pytest.raises(OSError, match="no space left"):
        to_eight_bits(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert not list(folder.glob("*.partial"))


def test_scales_that_do_not_fit_are_refused(folder):
    to_eight_bits(folder)
    path = folder / "model.safetensors"
    state = load_file(path)
    name = next(name for name in state if name.endswith(".scale8"))
    state[name] = state[name][:-1].clone()
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ValueError, match="scales: save the model again"):
        StftCodecModel.from_pretrained(folder)
