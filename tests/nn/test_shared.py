"""Models that share weights: saved once, loaded as if complete, refused if the base is another."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from makers.audio import make_tone
from makers.codecs import make_variable
from tokgen.nn.shared import share_weights
from tokgen.zoo.lookup import load_codec
from tokgen.zoo.stft import StftCodec


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    """A codec with an importance network, and one with the same other weights."""
    codec = make_variable(None)
    codec.save_pretrained(tmp_path / "vbr")
    codec.save_pretrained(tmp_path / "plain")
    plain = load_file(tmp_path / "plain/model.safetensors")
    plain = {name: w for name, w in plain.items() if "importance" not in name}
    save_file(plain, tmp_path / "plain/model.safetensors", metadata={"format": "pt"})
    config = (tmp_path / "plain/config.json").read_text().splitlines()
    start = next(i for i, line in enumerate(config) if "importance" in line)
    text = "\n".join(config[:start]).rstrip().rstrip(",") + "\n}\n"
    (tmp_path / "plain/config.json").write_text(text)
    return tmp_path / "vbr", tmp_path / "plain"


def test_shared_weights_are_saved_once_and_load_as_before(folders, tmp_path):
    vbr, plain = folders
    before, audio = load_codec(vbr), make_tone(1.0, 0)[None]
    size = (vbr / "model.safetensors").stat().st_size
    saved = share_weights(vbr, plain)
    assert (vbr / "model.safetensors").stat().st_size == size - saved < size / 2
    kept = load_file(vbr / "model.safetensors")
    assert kept and all(name.startswith("importance.") for name in kept)
    after = load_codec(vbr)
    assert isinstance(after, StftCodec) and after.spec.weight_hash == before.spec.weight_hash
    assert torch.equal(after.encode(audio, level=1.0), before.encode(audio, level=1.0))
    after.save_pretrained(tmp_path / "complete")
    (plain / "model.safetensors").unlink()
    assert load_codec(tmp_path / "complete").spec.weight_hash == before.spec.weight_hash


def test_a_base_that_is_missing_or_another_is_refused(folders):
    vbr, plain = folders
    share_weights(vbr, plain)
    with pytest.raises(ValueError, match="shares weights itself"):
        share_weights(plain, vbr)
    weights = load_file(plain / "model.safetensors")
    weights["decoder.head.bias"] += 1
    save_file(weights, plain / "model.safetensors")
    with pytest.raises(ValueError, match="builds on other weights than those in"):
        load_codec(vbr)
    (plain / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match="put the folder plain beside it"):
        load_codec(vbr)


def test_a_base_outside_is_refused(folders):
    vbr, plain = folders
    share_weights(vbr, plain)
    kept = load_file(vbr / "model.safetensors")
    about = {"format": "pt", "base": "../plain", "base_sha256": "0"}
    save_file(kept, vbr / "model.safetensors", metadata=about)
    with pytest.raises(ValueError, match="no folder beside it"):
        load_codec(vbr)
    with pytest.raises(ValueError, match="must be another folder beside"):
        share_weights(vbr, plain.parent)


def test_codecs_with_nothing_in_common_share_nothing(folders):
    vbr, plain = folders
    weights = load_file(plain / "model.safetensors")
    save_file({name: w + 1 for name, w in weights.items()}, plain / "model.safetensors")
    with pytest.raises(ValueError, match="nothing to share"):
        share_weights(vbr, plain)
