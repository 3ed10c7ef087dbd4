"""Wrong settings of codec trainings are refused before anything is loaded."""

from __future__ import annotations

import pytest

from makers.recipes import ROOT
from tokgen.codec_training.settings import (
    CodecLossWeights,
    CodecTrainingSettings,
    LossWeights,
    TuningSettings,
)
from tokgen.runs.settings import parse_settings


@pytest.mark.parametrize(
    ("recipe", "cls"),
    [
        ("train_codec.dac16k", CodecTrainingSettings),
        ("train_codec.paper48k", CodecTrainingSettings),
        ("tune_idempotence", TuningSettings),
        ("tune_idempotence.paper48k", TuningSettings),
    ],
)
def test_configs_that_train_in_float32(recipe, cls) -> None:
    settings = parse_settings(cls, ROOT / f"recipes/{recipe}.yaml", [])
    assert settings.mixed_precision == "no"
    if "tune" not in recipe:  # DAC's weights of sums over levels
        assert (settings.weights.commitment, settings.weights.codebook) == (0.25, 1.0)


@pytest.mark.parametrize("cls", [CodecTrainingSettings, TuningSettings])
@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"steps": 0}, "steps is 0, but must be at least 1"),
        ({"batch_size": 0}, "batch_size is 0, but must be at least 1"),
        ({"validation_min_seconds": -3.0}, "validation_min_seconds is -3, but must be at least 0"),
        ({"seconds": 0.0}, "seconds is 0, but must be above 0 and finite"),
        ({"learning_rate": float("inf")}, "learning_rate is inf, but must be above 0 and finite"),
        ({"cooldown": 1.5}, "cooldown is 1.5, but must be between 0 and 1"),
        ({"adversarial_seconds": -1.0}, "adversarial_seconds is -1, but must be above 0"),
        ({"corpora": []}, "corpora is empty: give at least one corpus"),
        ({"seed": -1}, "seed is -1, but must be at least 0"),
    ],
)
def test_shared_settings(cls, more, message) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**more)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CodecTrainingSettings(decoder_steps=-1), "decoder_steps is -1"),
        (lambda: CodecTrainingSettings(adversarial_start=-1), "adversarial_start is -1"),
        (lambda: TuningSettings(sweep_steps=0), "sweep_steps is 0, but must be at least 1"),
        (lambda: TuningSettings(validation_passes=1), "validation_passes is 1, but must be at"),
        (lambda: TuningSettings(adversarial_share=-0.5), "adversarial_share is -0.5"),
        (lambda: TuningSettings(weight=-1.0), "weight is -1, but must be at least 0"),
        (lambda: TuningSettings(shift=-1), "shift is -1, but must be at least 0"),
        (lambda: TuningSettings(average=1.5), "average is 1.5, but must be between 0 and 1"),
        (lambda: TuningSettings(rate_steps_before=-1), "rate_steps_before is -1, but must be at"),
        (
            lambda: TuningSettings(loss="latent"),
            "loss 'latent': known are enc, proj, code, margin and none",
        ),
        (
            lambda: TuningSettings(later_weight=0.3),
            "later_weight = 0.3 with passes = 1: there is no",
        ),
        (lambda: LossWeights(mel=-1.0), "mel is -1, but must be at least 0"),
        (lambda: CodecLossWeights(codebook=-1.0), "codebook is -1, but must be at least 0"),
    ],
)
def test_settings_of_one_recipe(make, message) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_single_settings_of_a_network_are_read_as_yaml() -> None:
    argv = [
        "--model.latent_dim",
        "32",
        "--model.causal=true",
        "--model.importance",
        "{widths: [4]}",
    ]
    argv += ["--discriminator.channels", "4"]
    argv += ["--discriminator.kind", "ensemble"]
    found = parse_settings(CodecTrainingSettings, ROOT / "recipes" / "train_codec.yaml", argv)
    assert found.model["latent_dim"] == 32 and found.model["causal"] is True
    assert found.model["importance"] == {"widths": [4]} and found.model["width"] == 320
    assert (found.discriminator["channels"], found.discriminator["kind"]) == (4, "ensemble")
