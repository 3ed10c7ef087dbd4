"""DualCodec gives the codes and audio of its package, whose levels differ in size."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from unittest.mock import MagicMock

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from makers.audio import make_tone
from makers.dualcodec import BERT, make_dualcodec, published_names, write_dualcodec
from makers.rebuilt import loud, weight_norm
from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.codec.base import Codec
from tokgen.modelling.masked import MaskedTransformer
from tokgen.zoo.lookup import load_codec, read_card
from tokgen.zoo.networks.dualcodec import DualCodecModel
from tokgen.zoo.rebuilt.dualcodec import DualCodec, _plain
from tokgen.zoo.transformers_loading import from_transformers

HOP = 960
CHECKPOINT = "dualcodec_x.safetensors"


@pytest.fixture(scope="module")
def codec() -> Codec:
    return make_dualcodec()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "mine"
    folder.mkdir()
    write_dualcodec(folder)
    return folder


def tone(n_samples: int) -> Tensor:
    return make_tone(n_samples / 24000, 0, 24000)[None][..., :n_samples]


@pytest.fixture
def package(monkeypatch: pytest.MonkeyPatch) -> type[nn.Module]:
    """The package's network. What only its training and downloads import is left out."""
    if not any((Path(p) / "dualcodec").is_dir() for p in sys.path):
        pytest.skip("dualcodec is not installed: pip install --no-deps dualcodec")
    import_torchaudio()
    audiotools, ml = MagicMock(), ModuleType("audiotools.ml")
    ml.BaseModel = nn.Module  # type: ignore[attr-defined]
    audiotools.ml = ml
    for name in ("cached_path", "hydra", "easydict", "audiotools", "audiotools.ml"):
        found = {"audiotools": audiotools, "audiotools.ml": ml}.get(name, MagicMock())
        monkeypatch.setitem(sys.modules, name, found)
    from dualcodec.model_codec import DualCodec as Package

    return Package


@torch.inference_mode()
def test_equals_the_package(package: type[nn.Module]) -> None:
    """The package's network takes features of 1024 values only."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        model = DualCodecModel(
            sample_rate=24000,
            strides=[2, 3, 2, 2, 2],
            encoder_channels=32,
            decoder_channels=32,
            n_codebooks=4,
            codebook_size=64,
            codebook_dim=8,
            semantic_size=90,
            semantic_dim=8,
            block_width=16,
            block_hidden=2048,
            n_blocks=2,
            causal=True,
            semantic_model=BERT,
        ).eval()
        theirs = package(
            encoder_dim=32,
            encoder_rates=[2, 3, 2, 2, 2],
            decoder_dim=32,
            decoder_rates=[2, 2, 2, 3, 2],
            n_codebooks=3,
            codebook_size=64,
            semantic_codebook_size=90,
            sample_rate=24000,
            convnext_dim=16,
            convnext_layers=2,
            is_causal=True,
        ).eval()
    for part in (model.dac, model.convnext_encoder, model.convnext_decoder, model.semantic_vq):
        loud(part)
    loud(model.dac.decoder, gain=0.6)
    own = {
        k: v for k, v in model.state_dict().items() if not k.startswith("semantic_m")
    }  # not w2v-BERT and the statistics
    own = {k: v for k, v in own.items() if not k.startswith("semantic_s")}
    normed = weight_norm(own, without=("pwconv", "dwconv", "codebook"))
    named = published_names(normed, 5)
    theirs.load_state_dict(named)
    plain = _plain(named)
    assert set(plain) == set(own)
    for name, tensor in own.items():
        torch.testing.assert_close(plain[name], tensor)
    waveform = tone(48 * 30)
    features = torch.randn(1, 1024, 30, generator=torch.Generator().manual_seed(0))
    semantic, acoustic = theirs.encode(waveform, semantic_repr=features)
    codes = model.encode(waveform, features)
    assert codes.equal(torch.cat([semantic, acoustic], 1))
    assert len(codes.unique()) > 20
    for k in (2, 4):
        audio = theirs.decode_from_codes(semantic, acoustic[:, : k - 1])
        torch.testing.assert_close(model.decode(codes[:, :k]), audio, atol=1e-4, rtol=0)
        assert 0.01 < audio.std() < 0.9
    audio = theirs.decode_from_codes(semantic, None)
    torch.testing.assert_close(model.decode(codes[:, :1]), audio, atol=1e-4, rtol=0)


@torch.inference_mode()
@pytest.mark.parametrize("n_frames", [1, 2, 25])
def test_features_are_those_of_a_layer_of_w2v_bert(
    codec: DualCodec, folder: Path, n_frames: int
) -> None:
    """As the package computes them, but in float32."""
    bert = from_transformers("Wav2Vec2BertModel").from_pretrained(folder / "w2v-bert-2.0")
    extractor = from_transformers("SeamlessM4TFeatureExtractor")(padding_value=1.0)
    padded = F.pad(tone(n_frames * HOP), (0, 360))
    assert codec.model.padded_length(n_frames) == padded.shape[-1]
    audio = import_torchaudio().functional.resample(padded, 24000, 16000)
    inputs = extractor(audio[0, 0], sampling_rate=16000, return_tensors="pt")
    hidden = bert.eval()(**inputs, output_hidden_states=True).hidden_states
    assert len(hidden) == 19
    features = F.avg_pool1d(((hidden[17] - 0.1) / 0.5**0.5).mT, 2, 2)
    found = codec.model.features(padded)
    assert found.shape == (1, 32, n_frames)
    torch.testing.assert_close(found, features, atol=1e-4, rtol=1e-4)


def test_levels_differ_in_size(codec: DualCodec) -> None:
    assert codec.spec.sizes == (60, 32, 32, 32)
    codes = codec.encode(tone(9000))
    with pytest.raises(ValueError, match=r"level 1 has code .*: dualcodec has entries 0\.\.31"):
        codec.decode(torch.where(torch.arange(4)[:, None] == 1, 32, codes))
    vectors = codec.code_vectors()
    assert vectors is not None and vectors.shape == (4, 60, 4)
    assert not vectors[1:, 32:].any() and vectors[0, 59].any()
    model = MaskedTransformer.for_codec(codec, dim=32, depth=1, heads=2, dim_head=16)
    assert model.level_sizes == codec.spec.sizes
    assert model.code_vectors is not None
    rms = [model.code_vectors[k, :n].square().mean().sqrt() for k, n in enumerate(codec.spec.sizes)]
    torch.testing.assert_close(torch.stack(rms), torch.ones(4))


def test_loads_from_a_published_folder(codec: DualCodec, folder: Path, tmp_path: Path) -> None:
    spec = read_card(folder).spec
    assert (spec.sample_rate, spec.hop_length, spec.sizes) == (24000, HOP, codec.spec.sizes)
    loaded = load_codec(folder)
    assert loaded.spec.weight_hash == codec.spec.weight_hash
    waveform = tone(5000)
    codes = codec.encode(waveform)
    assert loaded.encode(waveform).equal(codes)
    loaded.save_pretrained(tmp_path / "saved")
    again = load_codec(tmp_path / "saved")
    assert again.spec.sizes == codec.spec.sizes
    assert again.spec.weight_hash == codec.spec.weight_hash
    assert again.decode(codes).equal(codec.decode(codes))


def test_what_is_missing_is_named(folder: Path) -> None:
    state = load_file(folder / CHECKPOINT)
    first = next(iter(state))
    save_file({k: v for k, v in state.items() if k != first}, folder / CHECKPOINT)
    with pytest.raises(ValueError, match=r"weights do not fit|does not have DualCodec's weights"):
        load_codec(folder)
    save_file(state, folder / CHECKPOINT)
    torch.save({"mean": torch.zeros(32)}, folder / "w2vbert2_mean_var_stats_emilia.pt")
    with pytest.raises(ValueError, match="has no mean and var"):
        load_codec(folder)
    (folder / "w2v-bert-2.0" / "config.json").unlink()
    with pytest.raises(ValueError, match=r"hf download facebook/w2v-bert-2\.0 --local-dir"):
        load_codec(folder)
    save_file(state, folder / "dualcodec_y.safetensors")
    with pytest.raises(ValueError, match=r"has 2 files dualcodec_\*\.safetensors"):
        load_codec(folder)
