"""Models of transformers load strictly, from safetensors only."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from makers.audio import codec_tone
from makers.codecs import MAKERS, make_dac, make_stft_codec
from tokgen.zoo.adapters.dac import DacCodec
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.transformers_loading import from_transformers


def test_a_saved_model_loads(tmp_path: Path) -> None:
    codec = make_dac("dac-odd")
    codec.model.save_pretrained(tmp_path / "mine")
    loaded = DacCodec.from_pretrained(tmp_path / "mine", licence="MIT")
    assert loaded.spec.name == "mine"
    assert loaded.spec.licence == "MIT"
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    assert loaded.spec.hop_length == 40
    waveform = codec_tone(codec, 3000)
    assert torch.equal(loaded.encode(waveform), codec.encode(waveform))


def test_half_precision_weights_load_as_float32(tmp_path: Path) -> None:
    codec = make_dac("dac-even")
    codec.model.half().save_pretrained(tmp_path / "half")
    loaded = DacCodec.from_pretrained(tmp_path / "half")
    assert {p.dtype for p in loaded.model.parameters()} == {torch.float32}


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:

    make_dac("dac-even").model.save_pretrained(tmp_path)
    weights = tmp_path / "model.safetensors"
    state = load_file(weights)
    name, tensor = next(iter(state.items()))
    save_file({k: v for k, v in state.items() if k != name}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="missing_keys"):
        DacCodec.from_pretrained(tmp_path)
    save_file(state | {"more": tensor.clone()}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="unexpected_keys"):
        DacCodec.from_pretrained(tmp_path)
    save_file(state | {name: tensor.new_zeros(7, 7, 7)}, weights, {"format": "pt"})
    with pytest.raises(ValueError, match="do not fit"):
        DacCodec.from_pretrained(tmp_path)
    weights.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: a header of"):
        DacCodec.from_pretrained(tmp_path)
    save_file(state, weights, {"format": "pt"})
    (tmp_path / "config.json").write_text('{"model_type": "encodec"}')
    with pytest.raises(ValueError, match="'encodec', not a 'dac'"):
        DacCodec.from_pretrained(tmp_path)


def test_a_class_that_the_installed_transformers_lacks_is_named() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"transformers [\d.]+ has no NopeModel: pip"):
        from_transformers("NopeModel")


def test_a_saved_codec_keeps_its_weights(tmp_path: Path) -> None:
    """In half precision only if that changes no weight, or if it is asked for."""
    codec = make_stft_codec()
    codec.save_pretrained(tmp_path / "same")
    assert load_codec(tmp_path / "same").spec.weight_hash == codec.spec.weight_hash
    codec.save_pretrained(tmp_path / "half", dtype=torch.float16)
    half = load_codec(tmp_path / "half")
    assert half.spec.weight_hash != codec.spec.weight_hash
    half.save_pretrained(tmp_path / "again")
    assert load_codec(tmp_path / "again").spec.weight_hash == half.spec.weight_hash
    sizes = [(tmp_path / n / "model.safetensors").stat().st_size for n in ("same", "half", "again")]
    assert sizes[0] > 1.9 * sizes[1] and sizes[1] == sizes[2]


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("mimi", {"intermediate_size": 0}, r"fit config\.json: .*mlp.* MISMATCH .* ckpt"),
        ("mimi", {"num_quantizers": 10**9}, "n_codebooks = 1000000000, but .* holds only"),
        ("encodec-24k", {"num_residual_layers": 10**6}, "num_residual_layers = 1000000"),
        ("encodec-24k", {"chunk_length_s": "x"}, "chunk_length_s|a setting is wrong"),
        ("encodec-48k", {"chunk_length_s": 1e9}, r"chunk_length_s = 1000000000\.0, .* at most 60"),
        ("encodec-48k", {"overlap": 0.99999}, "overlap = 0.99999: at most 60 s and 0.9"),
        ("encodec-48k", {"audio_channels": None}, "channels = None: must be an integer"),
        ("encodec-48k", {"target_bandwidths": []}, "config.json: "),
        ("xcodec2", {"quantization_levels": [1, 4]}, r"\[1, 4\]: each must be at least 2"),
        ("neucodec", {"input_sampling_rate": 0}, "a setting is wrong: .*zero"),
        ("xcodec", {"acoustic_model_config": 5}, "a setting is wrong: 'int' object"),
    ],
)
def test_wrong_settings_of_transformers_models(
    name: str, settings: dict, message: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    MAKERS[name]().save_pretrained(tmp_path / name)
    path = tmp_path / name / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **settings}))
    with pytest.raises(ValueError, match=message) as error:
        load_codec(tmp_path / name)
    assert str(tmp_path / name) in str(error.value) and "\n" not in str(error.value)
    assert "LOAD REPORT" not in caplog.text
