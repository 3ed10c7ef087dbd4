"""VoiceCraft's EnCodec gives the codes and audio of the package that its code comes from."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from makers.audio import make_tone
from makers.library_codecs import VOICECRAFT, make_voicecraft, voicecraft_checkpoint
from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.codec.base import Codec
from tokgen.zoo.adapters.audiocraft import AudiocraftCodec, _kbps
from tokgen.zoo.adapters.encodec import StagedEncodecCodec
from tokgen.zoo.lookup import load_codec, read_card


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make_voicecraft()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    torch.save({"best_state": {"model": voicecraft_checkpoint()}}, folder / VOICECRAFT)
    return folder


def tone(n_samples: int) -> Tensor:
    return make_tone(n_samples / 16000, 0)[None][..., :n_samples]


def package_model() -> nn.ModuleDict:
    """The networks of the package encodec, with which audiocraft shares its own."""
    import_torchaudio()  # the package imports it
    pytest.importorskip("encodec")
    from encodec.modules import SEANetDecoder, SEANetEncoder
    from encodec.quantization import ResidualVectorQuantizer

    shape: dict[str, Any] = {
        "dimension": 8,
        "n_filters": 4,
        "n_residual_layers": 1,
        "ratios": [5, 4, 2],
        "norm": "weight_norm",
        "causal": False,
        "pad_mode": "constant",
        "true_skip": True,
        "lstm": 2,
    }
    model = nn.ModuleDict(
        {
            "encoder": SEANetEncoder(**shape),
            "decoder": SEANetDecoder(**shape),
            "quantizer": ResidualVectorQuantizer(dimension=8, n_q=4, bins=32),
        }
    )
    model.load_state_dict(voicecraft_checkpoint())
    return model.eval()


@torch.inference_mode()
@pytest.mark.parametrize("n", [1, 39, 40, 41, 9999, 57 * 40])
def test_equals_the_package(codec: Codec, n: int) -> None:
    package = package_model()
    waveform = tone(n)
    theirs = package["quantizer"].vq.encode(package["encoder"](waveform))  # [K, B, T]
    codes = codec.encode(waveform)
    assert codes.equal(theirs.transpose(0, 1))
    audio = package["decoder"](package["quantizer"].decode(theirs))
    assert n < 1000 or audio.std() > 0.001
    torch.testing.assert_close(codec.decode(codes), audio, atol=1e-4, rtol=0)


def test_loads_from_a_published_folder(codec: Codec, folder: Path, tmp_path: Path) -> None:
    spec = read_card(folder).spec
    assert (spec.sample_rate, spec.hop_length, spec.n_codebooks) == (16000, 40, 4)
    assert spec.latency_samples == 0
    loaded = load_codec(folder)
    assert isinstance(loaded, StagedEncodecCodec)
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    waveform = tone(3000)
    codes = codec.encode(waveform)
    assert loaded.encode(waveform).equal(codes)
    loaded.save_pretrained(tmp_path / "saved")
    again = load_codec(tmp_path / "saved")
    assert again.spec.weight_hash == codec.spec.weight_hash
    assert again.encode(waveform).equal(codes)
    low = load_codec(f"{tmp_path / 'saved'}:4")
    assert low.encode(waveform).equal(codes[:, :2])


def test_the_bitrates_are_those_of_whole_levels() -> None:
    for per_level in (550.0, 50 * 10.965784, 3.3, 750 / 7):
        for k in range(1, 40):
            kbps = _kbps(per_level, k)
            assert int(1000 * kbps // per_level) == k


class _Config:
    """Stands for an object of omegaconf, and notes when its code runs."""

    loaded = False

    def __setstate__(self, state: object) -> None:
        type(self).loaded = True


def test_settings_of_omegaconf_are_read_past(
    codec: Codec, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package, module = ModuleType("omegaconf"), ModuleType("omegaconf.dictconfig")
    monkeypatch.setitem(sys.modules, "omegaconf", package)
    monkeypatch.setitem(sys.modules, "omegaconf.dictconfig", module)
    kind = type("DictConfig", (_Config,), {"__module__": module.__name__})
    module.DictConfig = kind  # type: ignore[attr-defined]
    config = kind()
    config.content = {"sample_rate": int, "any": Any}
    state = {"model": voicecraft_checkpoint()}
    torch.save({"best_state": state, "xp.cfg": config}, folder / VOICECRAFT)
    assert load_codec(folder).spec.weight_hash == codec.spec.weight_hash
    monkeypatch.delitem(sys.modules, "omegaconf.dictconfig")
    assert load_codec(folder).spec.weight_hash == codec.spec.weight_hash
    assert not kind.loaded


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"state": {}}, "has no best_state"),
        ({"best_state": {"model": {"a": torch.zeros(1)}}}, "does not have the weights of EnCodec"),
        ({"best_state": {"model": [1]}}, "holds a list, not a state dict"),
        ({"best_state": {}, "x": Path("y")}, "can run code"),
    ],
)
def test_other_checkpoints_are_refused(folder: Path, content: object, message: str) -> None:
    torch.save(content, folder / VOICECRAFT)
    with pytest.raises(ValueError, match=message):
        load_codec(folder)


def test_weights_that_do_not_fit_are_refused(folder: Path) -> None:
    state = voicecraft_checkpoint()
    more = state | {"decoder.model.99.conv.conv.bias": torch.zeros(1)}
    torch.save({"best_state": {"model": more}}, folder / VOICECRAFT)
    with pytest.raises(ValueError, match="weights do not fit"):
        load_codec(folder)
    torch.save({"best_state": {"model": state}}, folder / "encodec_other.th")
    with pytest.raises(ValueError, match=r"has 2 files encodec_\*\.th"):
        AudiocraftCodec.from_pretrained(folder)
