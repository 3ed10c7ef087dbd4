"""FocalCodec gives the codes and audio of its own package, for every frame."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from makers.audio import make_tone
from tests.codec import test_base as contract
from tokgen.audio.resampling import resample
from tokgen.codec.base import Codec
from tokgen.zoo.adapters.focalcodec import FocalCodec, focalcodec_package
from tokgen.zoo.lookup import load_codec, read_card

CONFIG: dict[str, Any] = {
    "encoder_name": "WavLM",
    "encoder_config": {
        "hidden_dims": [4] * 7,
        "num_layers": 1,
        "dim": 16,
        "ffn_dim": 16,
        "num_heads": 2,
        "conv_pos": 16,
        "conv_pos_groups": 2,
        "max_cached_steps": 0,
    },
    "compressor_name": "FocalEncoder",
    "compressor_config": {
        "input_dim": 16,
        "output_dim": 6,
        "hidden_dims": [16, 16, 16],
        "downscale_factors": [2, 1, 1],
        "focal_window": 3,
    },
    "quantizer_name": "BinarySphericalQuantizer",
    "quantizer_config": {"codebook_size": 64},
    "decompressor_name": "FocalDecoder",
    "decompressor_config": {
        "input_dim": 6,
        "output_dim": 16,
        "hidden_dims": [16, 16, 16],
        "upscale_factors": [1, 1, 2],
        "focal_window": 3,
    },
    "decoder_name": "Vocos",
    "decoder_config": {"input_dim": 16, "num_layers": 1, "dim": 16, "ffn_dim": 16},
}
CONTRACT = [
    contract.test_any_length_is_encoded_and_restored,
    contract.test_codes_carry_information,
    contract.test_a_batch_gives_the_same_codes_as_one_by_one,
    contract.test_padding_does_not_change_codes,
    contract.test_encoding_twice_gives_the_same_codes,
    contract.test_silence_and_full_scale,
    contract.test_fewer_levels_are_the_first_ones,
    contract.test_a_batch_decodes_as_one_by_one,
    contract.test_unusable_settings_and_codes_are_refused,
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder as the authors publish it, with random weights."""
    package = pytest.importorskip("focalcodec")
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = package.FocalCodec(**CONFIG)
        for name, weight in model.named_parameters():  # so that codes vary
            if weight.ndim > 1 and not name.startswith("decoder."):
                weight.data.mul_(4)
            elif name.endswith("bias"):
                weight.data.zero_()
    folder = tmp_path_factory.mktemp("focal") / "mine"
    folder.mkdir()
    save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG))
    return folder


@pytest.fixture(scope="module")
def codec(folder: Path) -> Iterator[Codec]:
    yield load_codec(folder)


def tone(n_samples: int) -> Tensor:
    return make_tone(n_samples / 16000, 0)[None][..., :n_samples]


@pytest.mark.parametrize("check", CONTRACT, ids=lambda check: check.__name__)
def test_the_contract_holds(codec: Codec, check: Any) -> None:
    check(codec)


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [1, 2, 25])
def test_equals_the_package(codec: Codec, folder: Path, n_frames: int) -> None:
    theirs = focalcodec_package().FocalCodec(**CONFIG).eval()
    theirs.load_state_dict(load_file(folder / "model.safetensors"))
    waveform = tone(640 * n_frames)
    padded = torch.cat([waveform[0], torch.zeros(1, 80)], dim=1)
    tokens = theirs.sig_to_toks(padded)
    codes = codec.encode(waveform)
    assert torch.equal(codes[:, 0], tokens)
    audio = theirs.toks_to_sig(tokens)
    torch.testing.assert_close(codec.decode(codes)[0], audio, atol=1e-4, rtol=0)
    assert n_frames < 2 or audio.std() > 0.001


@torch.inference_mode()
def test_causal_networks_return_another_rate(tmp_path: Path) -> None:
    package = pytest.importorskip("focalcodec")
    config = copy.deepcopy(CONFIG) | {"decoder_name": "WaveNeXt"}
    for part in ("encoder", "compressor", "decompressor", "decoder"):
        config[f"{part}_config"]["causal"] = True
    config["encoder_config"]["max_cached_steps"] = 512
    config["decoder_config"]["hop_length"] = 480
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = package.FocalCodec(**config).eval()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    codec = load_codec(tmp_path)
    assert (codec.spec.sample_rate, codec.spec.hop_length) == (24000, 960)
    for n in (1, 959, 960, 961, 24000):
        waveform = make_tone(n / 24000, 0, 24000)[None][..., :n]
        codes = codec.encode(waveform)
        assert codes.shape == (1, 1, -(-n // 960))
        assert codec.decode(codes, n).shape == waveform.shape
    tokens = theirs.sig_to_toks(resample(waveform[0, 0], 24000, 16000)[None])
    assert torch.equal(codes[:, 0], tokens)
    audio = theirs.toks_to_sig(tokens)
    torch.testing.assert_close(codec.decode(codes)[0], audio, atol=1e-4, rtol=0)


def test_saves_and_loads(codec: Codec, tmp_path: Path) -> None:
    assert isinstance(codec, FocalCodec)
    codec.save_pretrained(tmp_path / "again")
    loaded = load_codec(tmp_path / "again")
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    assert torch.equal(loaded.encode(tone(5000)), codec.encode(tone(5000)))


def test_the_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "focalcodec", None)
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'focalcodec@git\+https://github"):
        load_codec(tmp_path)
    spec = read_card(tmp_path).spec  # needs no package
    assert (spec.sample_rate, spec.hop_length, spec.codebook_size) == (16000, 640, 64)


def test_numbers_of_published_settings() -> None:
    causal = {name: "WaveNeXt" if name == "decoder_name" else {} for name in CONFIG}
    causal["encoder_name"] = "WavLM"
    numbers = FocalCodec.numbers(causal)
    assert (numbers["sample_rate"], numbers["hop_length"]) == (24000, 480)
    with pytest.raises(ValueError, match="tokgen runs WavLM with Vocos or WaveNeXt"):
        FocalCodec.numbers(causal | {"decoder_name": "Other"})


def test_folders_that_do_not_fit_are_refused(folder: Path, tmp_path: Path) -> None:
    state = load_file(folder / "model.safetensors")
    name = next(iter(state))
    for config, weights, message in (
        (CONFIG, state | {"more": torch.zeros(1)}, "unknown tensors more"),
        (CONFIG, {k: v for k, v in state.items() if k != name}, "weights do not fit"),
        (CONFIG | {"decoder_config": 3}, state, "setting is wrong|not of type dict"),
        (CONFIG | {"quantizer_config": {"codebook_size": 2**40}}, state, "do not fit|is wrong"),
        ({k: v for k, v in CONFIG.items() if k != "decoder_name"}, state, "lacks decoder_name"),
    ):
        (tmp_path / "config.json").write_text(json.dumps(config))
        save_file(weights, tmp_path / "model.safetensors")
        with pytest.raises(ValueError, match=message):
            load_codec(tmp_path)
