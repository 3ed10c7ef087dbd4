"""Training of the STFT codec without a quantizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from makers.audio import make_tone
from makers.continuous import TINY
from makers.recipes import ROOT
from tokgen.codec_training.architectures import load_into, make_continuous, make_trainable
from tokgen.codec_training.phases import phase_at
from tokgen.codec_training.settings import CodecTrainingSettings
from tokgen.codec_training.train import train_codec
from tokgen.nn.cards import read_card_text
from tokgen.runs.settings import parse_settings
from tokgen.zoo.continuous import load_continuous

LEVELS = {"n_codebooks": 2, "codebook_size": 32, "codebook_dim": 4}


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"quantizer": "none", "continuous_steps": 5}, "continuous_steps = 5 with quantizer none"),
        ({"latent_noise": 0.1}, r"latent_noise = 0\.1 with quantizer residual"),
        ({"quantizer": "none", "latent_noise": -1.0}, "latent_noise is -1"),
        ({"quantizer": "no"}, "quantizer 'no': known are residual, variable, none"),
    ],
)
def test_wrong_settings(more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CodecTrainingSettings(**more)


def test_the_recipe_trains_without_a_quantizer() -> None:
    path = ROOT / "recipes" / "train_codec.continuous.yaml"
    settings = parse_settings(CodecTrainingSettings, path, ["--corpora", "[x]"])
    assert settings.quantizer == "none" and settings.latent_noise > 0
    assert not any(phase_at(step, settings).quantize for step in (0, settings.steps - 1))
    codec = make_continuous(settings.architecture, settings.model, settings.latent_noise)
    assert codec.as_codec().spec.latent_dim == settings.model["latent_dim"]
    with pytest.raises(ValueError, match="only stft trains without one"):
        make_continuous("dac", {}, 0.0)


def test_noise_is_added_in_training_only() -> None:
    torch.manual_seed(0)
    codec, audio = make_continuous("stft", TINY, 0.5), make_tone(0.5, 0)[None]
    noisy = [codec(audio).waveform for _ in range(2)]
    assert not torch.equal(*noisy)
    codec.eval()
    plain = codec(audio).waveform
    assert torch.equal(plain, codec(audio).waveform)
    assert not torch.equal(plain, noisy[0])
    torch.testing.assert_close(codec.as_codec().roundtrip(audio), plain, rtol=0, atol=1e-6)
    without = make_continuous("stft", TINY, 0.0)
    without.load_state_dict(codec.state_dict())
    assert torch.equal(without(audio).waveform, plain)


def test_a_training_starts_from_a_codec_with_or_without_a_quantizer(tmp_path: Path) -> None:
    torch.manual_seed(0)
    quantized = make_trainable("stft", TINY | LEVELS)
    quantized.fit_statistics(make_tone(0.5, 0)[None])
    quantized.eval().save(tmp_path / "codec")
    saved, audio = load_file(tmp_path / "codec" / "model.safetensors"), make_tone(0.5, 0)[None]
    codec = make_continuous("stft", TINY, 0.0)
    load_into(codec, tmp_path / "codec")
    for name, weight in codec.model.state_dict().items():
        assert torch.equal(weight, saved[name].float())
    codec.eval().save(tmp_path / "continuous")
    again = make_continuous("stft", TINY, 0.0).eval()
    load_into(again, tmp_path / "continuous")
    assert torch.equal(again(audio).waveform, codec(audio).waveform)
    loaded = load_continuous(tmp_path / "continuous")
    assert torch.equal(loaded.encode(audio), codec.as_codec().encode(audio))
    with pytest.raises(ValueError, match="other shapes than the settings"):
        load_into(make_continuous("stft", TINY | {"latent_dim": 4}, 0.0), tmp_path / "codec")


def test_a_training_and_its_adversarial_continuation(tiny_corpus: Path, tmp_path: Path) -> None:
    def train(name: str, **more: Any) -> dict[str, torch.Tensor]:
        settings: dict[str, Any] = {
            "name": name,
            "runs": str(tmp_path),
            "quantizer": "none",
            "model": TINY,
            "corpora": [str(tiny_corpus)],
            "batch_size": 2,
            "seconds": 0.3,
            "latent_noise": 0.2,
            "warmup": 0,
            "adversarial_start": 10**6,
            "discriminator": {"periods": [], "windows": [256], "channels": 4},
        }
        history = train_codec(CodecTrainingSettings(**(settings | more)))
        assert history is not None and "codebook_use" not in history[-1]
        return load_file(tmp_path / name / "codec" / "model.safetensors")

    first = train("first", steps=4)
    codec = load_continuous(tmp_path / "first" / "codec")
    assert codec.spec.latent_dim == 8 and first["encoder.head.weight"].dtype == torch.float16
    assert "load_continuous" in (read_card_text(tmp_path / "first" / "codec") or "")

    start = {"start_from": str(tmp_path / "first" / "codec"), "steps": 2}
    second = train("second", decoder_steps=2, adversarial_start=0, **start)
    assert first.keys() == second.keys()
    moved = {name.split(".")[0] for name in first if not torch.equal(first[name], second[name])}
    assert moved == {"decoder"}
