"""config.json names the class and the version, and older folders still load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

import tokgen
from makers.codecs import make_stft_codec
from tokgen.codec_training.discriminators.ensemble import Discriminator
from tokgen.modelling.masked import MaskedTransformer
from tokgen.nn.hashes import hash_weights
from tokgen.nn.pretrained import Pretrained
from tokgen.zoo.networks.stft import StftCodecModel

HASH = "7618a82b59a5983dc9b121f54f5ad651d2d3dba79232597bf6d4b47cb8e4621f"


def make_models() -> dict[str, Pretrained]:
    """One small model of each kind, by its `model_type`."""
    masked = MaskedTransformer(
        n_codebooks=2, codebook_size=8, dim=16, depth=1, heads=2, dim_head=16, embedding="learned"
    )
    return {
        "tokgen_stft_codec": make_stft_codec().model,
        "tokgen_masked_transformer": masked,
        "Discriminator": Discriminator(periods=[], windows=[256], channels=2),
    }


@pytest.mark.parametrize("model_type", list(make_models()))
def test_config_names_class_and_version(model_type: str, tmp_path: Path) -> None:
    model = make_models()[model_type]
    folder = model.save_pretrained(tmp_path / "new")
    config = json.loads((folder / "config.json").read_text())
    assert config == {
        "model_type": model_type,
        "architectures": [type(model).__name__],
        "tokgen_version": tokgen.__version__,
        **model.config,
    }
    assert hash_weights(type(model).from_pretrained(folder)) == hash_weights(model)


@pytest.mark.parametrize("model_type", list(make_models()))
def test_older_folders_load(model_type: str, tmp_path: Path) -> None:
    """They have the name of the class for `model_type`, and nothing else."""
    model = make_models()[model_type]
    folder = model.save_pretrained(tmp_path / "old")
    (folder / "README.md").unlink(missing_ok=True)
    config = {"model_type": type(model).__name__, **model.config}
    (folder / "config.json").write_text(json.dumps(config))
    loaded = type(model).from_pretrained(folder)
    assert loaded.config == model.config
    assert hash_weights(loaded) == hash_weights(model)


def test_the_hash_of_weights_never_changes() -> None:
    """Token datasets and models name their codec by it."""
    model = torch.nn.Linear(2, 1)
    model.load_state_dict({"weight": torch.tensor([[1.0, -2.0]]), "bias": torch.tensor([0.5])})
    assert hash_weights(model) == HASH
    speech = tokgen.load_codec("speech-16k").spec.weight_hash
    assert speech == "8dcc74f1362c6c2b20707f04df3e0730dc37825c5c91a872b81a815747a055d2"


def test_a_config_of_another_class_is_refused(tmp_path: Path) -> None:
    models = make_models()
    folder = models["tokgen_masked_transformer"].save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match="is of a 'tokgen_masked_transformer', not a 'tokgen_stft_codec'"
    ):
        StftCodecModel.from_pretrained(folder)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "n_heads": 3}))
    with pytest.raises(ValueError, match=r"has settings MaskedTransformer lacks: \['n_heads'\]"):
        MaskedTransformer.from_pretrained(folder)


def test_a_folder_has_no_revisions_and_a_run_names_its_model(tmp_path: Path) -> None:
    make_stft_codec().model.save_pretrained(tmp_path / "run" / "model")
    with pytest.raises(ValueError, match="only hub ids have revisions"):
        StftCodecModel.from_pretrained(tmp_path / "run" / "model", revision="main")
    with pytest.raises(FileNotFoundError, match=r"the model of this run is .*run/model"):
        StftCodecModel.from_pretrained(tmp_path / "run")
