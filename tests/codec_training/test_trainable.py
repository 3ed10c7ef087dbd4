"""The architectures that can be trained."""

from __future__ import annotations

import copy

import pytest
import torch

from makers.audio import make_tone
from makers.recipes import ROOT
from tokgen.codec_training.architectures import load_into, make_trainable
from tokgen.codec_training.settings import CodecTrainingSettings, TuningSettings
from tokgen.nn.ema import Ema
from tokgen.nn.spectral_losses import MultiScaleMel
from tokgen.runs.settings import parse_settings
from tokgen.zoo.adapters.dac_training import has_weight_norm
from tokgen.zoo.lookup import load_codec

TINY = {
    "n_fft": 640, "width": 24, "encoder_depth": 1, "decoder_depth": 1, "expansion": 2,
    "latent_dim": 16, "n_codebooks": 2, "codebook_size": 32, "codebook_dim": 4,
}  # fmt: skip
SMALL_DAC = {
    "encoder_hidden_size": 8, "decoder_hidden_size": 32, "downsampling_ratios": [2, 4],
    "upsampling_ratios": [4, 2], "n_codebooks": 2, "codebook_size": 32, "codebook_dim": 4,
    "hidden_size": 32, "sampling_rate": 16000,
}  # fmt: skip


@pytest.mark.parametrize(("name", "config"), [("stft", TINY), ("dac", SMALL_DAC)])
def test_both_architectures_train_save_and_continue(name, config, tmp_path):
    torch.manual_seed(0)
    codec = make_trainable(name, config)
    audio = torch.cat([make_tone(0.5, s)[None] for s in range(4)])
    codec.fit_statistics(audio)
    optimizer = torch.optim.AdamW(codec.parameters(), lr=1e-3 if name == "dac" else 3e-3)
    mel = MultiScaleMel(16000, windows=(256, 512), mels=(20, 40))
    losses = []
    for _ in range(30):
        out = codec(audio)
        assert out.waveform.shape == audio.shape
        loss = mel(out.waveform, audio) + 0.25 * out.commitment_loss + out.codebook_loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]
    codec.eval().save(tmp_path)
    again = make_trainable(name, config)
    load_into(again, tmp_path)
    codes = codec.as_codec().encode(audio[:1])
    match = (again.eval().as_codec().encode(audio[:1]) == codes).float().mean()
    assert match > 0.9  # the STFT codec saves in half precision


@pytest.mark.parametrize("config", ["train_codec.yaml", "train_codec.adversarial.yaml"])
def test_config_of_the_stft_codec_trains_as_with_means_over_levels(config):
    """The weights were 0.25 and 1 while the quantizer's losses were means over the levels."""
    settings = parse_settings(CodecTrainingSettings, ROOT / "recipes" / config, [])
    n_levels = settings.model["n_codebooks"]
    torch.manual_seed(0)
    codec = make_trainable("stft", TINY | {"n_codebooks": n_levels}).eval()
    audio = torch.cat([make_tone(0.2, s)[None] for s in range(2)])
    codec.fit_statistics(audio)
    out = codec(audio)
    losses = {"mel": (out.waveform - audio).abs().mean()}
    now = losses | {"commitment": out.commitment_loss, "codebook": out.codebook_loss}

    quantizer = codec.model.quantizer
    residual, means = codec.model.encode_latents(audio).mT, []
    for level in quantizer.levels:
        projected = level.in_proj(residual)
        row = level.codebook(level.lookup(projected))
        means.append(
            [(projected - row.detach()).square().mean(), (projected.detach() - row).square().mean()]
        )
        residual = residual - level.out_proj(projected + (row - projected).detach())
    commitment, codebook = (sum(column) / n_levels for column in zip(*means, strict=True))
    before = losses["mel"] * settings.weights.mel + 0.25 * commitment + codebook

    parameters = list(codec.parameters())
    found = torch.autograd.grad(
        settings.weights.total(now), parameters, retain_graph=True, allow_unused=True
    )
    expected = torch.autograd.grad(before, parameters, allow_unused=True)
    for a, b in zip(found, expected, strict=True):
        torch.testing.assert_close(a, b)
    assert settings.max_codebook_loss == n_levels * CodecTrainingSettings().max_codebook_loss


def test_tuning_config_of_the_stft_codec_holds_the_weight_of_the_mean():
    settings = parse_settings(TuningSettings, ROOT / "recipes/tune_idempotence.yaml", [])
    assert settings.weights.commitment == 15 * 0.25 / load_codec("speech-16k").spec.n_codebooks


def test_a_fresh_dac_has_weight_norm_and_a_saved_one_has_none(tmp_path):
    torch.manual_seed(0)
    codec = make_trainable("dac", SMALL_DAC)
    assert has_weight_norm(codec.model)
    assert abs(codec.model.quantizer.quantizers[0].codebook.weight.std() - 1) < 0.2
    average = Ema(codec, 0.5)
    with torch.no_grad():
        for weight in codec.parameters():
            weight.mul_(1.1)
    average.update()
    audio = make_tone(0.5, 0)[None]
    with average.in_place(), torch.no_grad():
        averaged = copy.deepcopy(codec).eval()
        expected = averaged(audio).waveform
    averaged.save(tmp_path)
    saved = load_codec(tmp_path)
    assert not has_weight_norm(saved.model)
    torch.testing.assert_close(saved.roundtrip(audio), expected)

    again = make_trainable("dac", SMALL_DAC).eval()
    load_into(again, tmp_path)
    assert has_weight_norm(again.model)
    with torch.no_grad():
        torch.testing.assert_close(again(audio).waveform, expected)


def test_odd_strides_and_unknown_architectures_are_refused():
    odd = SMALL_DAC | {"downsampling_ratios": [2, 5], "upsampling_ratios": [5, 2]}
    with pytest.raises(ValueError, match=r"\[5\] are odd"):
        make_trainable("dac", odd)
    with pytest.raises(ValueError, match="architecture 'wave'"):
        make_trainable("wave", {})
    with pytest.raises(ValueError, match=r"model\.latent_dims: .* \(did you mean latent_dim\?\)"):
        make_trainable("stft", {"latent_dims": 32})
    for name, wrong in (("stft", {"latent_dim": "x"}), ("dac", {"n_codebooks": "three"})):
        with pytest.raises(ValueError, match="model: a setting has a wrong type"):
            make_trainable(name, wrong)
    with pytest.raises(ValueError, match="continuous_steps=0"):
        make_trainable("dac", SMALL_DAC).init_quantizer(torch.zeros(1, 1, 160))
