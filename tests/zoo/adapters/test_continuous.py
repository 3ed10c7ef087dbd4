"""transformers' continuous tokenizers give the latents and audio of transformers itself."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from makers.continuous import make_pocket_tts, make_vibevoice
from tokgen.zoo.continuous import load_continuous
from tokgen.zoo.lookup import load_codec, load_roundtrip, read_card


def vibevoice(model: Any, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    latents = model.encode(audio, sample=False).latents
    return latents.mT, model.decode(latents).audio


def pocket_tts(model: Any, audio: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    out = model(audio)
    return out.latents.mT, out.audio_values


@pytest.mark.parametrize(
    ("make", "run"), [(make_vibevoice, vibevoice), (make_pocket_tts, pocket_tts)]
)
@torch.no_grad()
def test_a_saved_model_loads_and_equals_transformers(
    make: Callable[[], Any], run: Callable[..., Any], tmp_path: Path
) -> None:
    made = make()
    made.model.save_pretrained(tmp_path / "model")
    codec = load_continuous(tmp_path / "model")
    assert type(codec) is type(made) and type(load_roundtrip(tmp_path / "model")) is type(made)
    assert codec.spec.weight_hash == made.spec.weight_hash
    assert (codec.spec.library, codec.spec.sample_rate) == ("transformers", 24000)
    card = read_card(tmp_path / "model")
    assert card.spec == replace(codec.spec, weight_hash="")
    with pytest.raises(ValueError, match="continuous codec and has no codes"):
        load_codec(tmp_path / "model")

    hop = codec.spec.hop_length
    audio = 0.1 * torch.randn(1, 1, 31 * hop + 5, generator=torch.Generator().manual_seed(0))
    latents, decoded = run(made.model, F.pad(audio, (0, hop - 5)))
    assert latents.std() > 0.1 and decoded.std() > 0.1
    found = codec.encode(audio)
    torch.testing.assert_close(found, latents, rtol=0, atol=1e-5)
    assert torch.equal(codec.encode(audio), found)  # no noise is added
    torch.testing.assert_close(
        codec.decode(found, audio.shape[-1]), decoded[..., : audio.shape[-1]], rtol=0, atol=1e-5
    )
    codec.save_pretrained(tmp_path / "again")
    assert torch.equal(load_continuous(tmp_path / "again").encode(audio), found)


@pytest.mark.parametrize(
    ("make", "settings", "reason"),
    [
        (make_vibevoice, {"channels": 2}, "only mono models run"),
        (make_vibevoice, {"downsampling_ratios": "x"}, "a setting is wrong"),
        (make_vibevoice, {"hidden_size": 60}, "weights do not fit config.json"),
        (make_vibevoice, {"quantization_config": {}}, "save the weights in floating point"),
        (make_pocket_tts, {"decoder_config": None}, "save the model with its decoder"),
        (make_pocket_tts, {"use_causal_conv": False}, "only causal models run"),
        (make_pocket_tts, {"latent_dim": 0}, "latent_dim = 0"),
        (make_pocket_tts, {"num_hidden_layers": 10**6}, "holds only"),
    ],
)
def test_models_that_do_not_run_are_named(
    make: Callable[[], Any], settings: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    make().model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text()) | settings
    (tmp_path / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=reason):
        load_continuous(tmp_path)


@pytest.mark.parametrize("make", [make_vibevoice, make_pocket_tts])
def test_settings_that_config_json_leaves_to_the_library(
    make: Callable[[], Any], tmp_path: Path
) -> None:
    make().model.save_pretrained(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for name in ("channels", "use_causal_conv"):  # defaults
        config.pop(name, None)
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert load_continuous(tmp_path).spec.n_frames(25) == 2
