"""SpeechTokenizer gives the codes and audio of its own package."""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from makers.audio import make_tone
from makers.codecs import SPEECHTOKENIZER, make_speechtokenizer
from tokgen.zoo.adapters.speechtokenizer import SETTINGS, SpeechTokenizerCodec, make_model
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.registry import ADAPTERS

WEIGHTS = "model.safetensors"


@pytest.fixture(scope="module")
def codec() -> SpeechTokenizerCodec:
    return make_speechtokenizer()


@pytest.fixture
def folder(codec: SpeechTokenizerCodec, tmp_path: Path) -> Path:
    """A folder as a user makes it from a published checkpoint."""
    folder = tmp_path / "mine"
    folder.mkdir()
    save_file({k: v.clone() for k, v in codec.model.state_dict().items()}, folder / WEIGHTS)
    (folder / "config.json").write_text(json.dumps(SPEECHTOKENIZER))
    return folder


def tone(n_samples: int) -> Tensor:
    return make_tone(n_samples / 8000, 0, 8000)[None]


@torch.inference_mode()
@pytest.mark.parametrize("n", [1, 2, 319, 320, 321, 640, 9999, 57 * 320])
def test_equals_the_package(codec: SpeechTokenizerCodec, n: int) -> None:
    waveform = tone(n)
    theirs = codec.model.encode(waveform)  # [K, B, T]
    codes = codec.encode(waveform)
    assert torch.equal(codes, theirs.transpose(0, 1))
    torch.testing.assert_close(codec.decode(codes), codec.model.decode(theirs), atol=1e-4, rtol=0)
    two = codec.model.decode(theirs[:2])
    torch.testing.assert_close(codec.decode(codes[:, :2]), two, atol=1e-4, rtol=0)
    assert n < 640 or two.std() > 0.01


@torch.inference_mode()
def test_quantized_equals_the_package(codec: SpeechTokenizerCodec) -> None:
    latents = codec.encode_latents(tone(4000))
    quantized, codes, _, per_level = codec.model.quantizer(latents, layers=list(range(8)))
    assert torch.equal(codec.quantize(latents), codes.transpose(0, 1))
    torch.testing.assert_close(codec.dequantize(codes.transpose(0, 1)), quantized)
    rows = codec.codebook_rows(codes.transpose(0, 1))
    torch.testing.assert_close(rows, torch.cat(per_level, dim=1))


def test_loads_from_a_folder(codec: SpeechTokenizerCodec, folder: Path) -> None:
    loaded = load_codec(folder)
    assert isinstance(loaded, SpeechTokenizerCodec)
    assert (loaded.spec.name, loaded.spec.library) == ("mine", "speechtokenizer")
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    assert not any(p.is_meta for p in loaded.model.parameters())
    waveform = tone(3000)
    codes = codec.encode(waveform)
    assert torch.equal(loaded.encode(waveform), codes)
    assert torch.equal(loaded.decode(codes), codec.decode(codes))
    half = {k: v.half() for k, v in load_file(folder / WEIGHTS).items()}
    save_file(half, folder / WEIGHTS)
    named = SpeechTokenizerCodec.from_pretrained(folder, name="half", licence="MIT")
    assert (named.spec.name, named.spec.licence) == ("half", "MIT")
    with pytest.raises(ValueError, match="half cannot be saved: copy or upload the folder"):
        named.save_pretrained(folder / "again")
    assert {p.dtype for p in named.model.parameters()} == {torch.float32}


class _Trap:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[type, tuple[str, str]]:
        return (open, (str(self.path), "w"))


def test_pickles_are_not_opened(folder: Path, tmp_path: Path) -> None:
    (folder / WEIGHTS).unlink()
    for name in ("SpeechTokenizer.pt", "pytorch_model.bin"):
        (folder / name).write_bytes(pickle.dumps(_Trap(tmp_path / "sprung")))
    with pytest.raises(
        FileNotFoundError, match=r"opens no pickles .*safetensors\.torch\.save_file"
    ):
        load_codec(folder)
    assert not (tmp_path / "sprung").exists()


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    weights = folder / WEIGHTS
    state = load_file(weights)
    name, tensor = next(iter(state.items()))
    for wrong in (
        {k: v for k, v in state.items() if k != name},
        state | {"more": tensor.clone()},
        state | {name: tensor.new_zeros(7, 7)},
    ):
        save_file(wrong, weights)
        with pytest.raises(ValueError, match="weights do not fit"):
            SpeechTokenizerCodec.from_pretrained(folder)
    weights.write_bytes(b"not safetensors")
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged: a header of"):
        SpeechTokenizerCodec.from_pretrained(folder)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ("{", "cannot be read"),
        ("[]", "holds a list, not settings"),
        (json.dumps(SPEECHTOKENIZER | {"model_type": "dac"}), "is of a 'dac', not a"),
        (json.dumps({"model_type": "speechtokenizer", "n_q": 8}), "lacks sample_rate, strides"),
        (json.dumps(SPEECHTOKENIZER | {"activation": "Nope"}), "a setting is wrong: .*'Nope'"),
        (json.dumps(SPEECHTOKENIZER | {"n_filters": "2"}), "n_filters = .2. is not of type int"),
    ],
)
def test_a_config_that_does_not_fit_is_refused(folder: Path, config: str, message: str) -> None:
    (folder / "config.json").write_text(config)
    with pytest.raises(ValueError, match=message):
        SpeechTokenizerCodec.from_pretrained(folder)


@pytest.mark.parametrize("module", ["speechtokenizer", "beartype"])
def test_the_extra_is_named(module: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[speechtokenizer\]'"):
        make_model(SPEECHTOKENIZER)


def test_numbers_of_a_config(codec: SpeechTokenizerCodec) -> None:
    assert set(SPEECHTOKENIZER) == {"model_type", *SETTINGS}
    (adapter,) = (w for w in ADAPTERS if w.model_type == "speechtokenizer")
    numbers = adapter.codec_class().numbers(SPEECHTOKENIZER)
    assert numbers == {key: getattr(codec.spec, key) for key in numbers}
    assert len(numbers) == 4
