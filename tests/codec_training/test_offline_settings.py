"""Tests of the settings of quantize_offline."""

from dataclasses import replace

import pytest

from tokgen.codec_training.discriminators.ensemble import Discriminator
from tokgen.codec_training.offline_settings import (
    OfflineSettings,
    check_sources,
    decoder_settings,
)
from tokgen.codec_training.settings import CodecTrainingSettings


@pytest.mark.parametrize(
    ("codec", "expected"),
    [("speech-16k-continuous", "speech-16k-continuous"), ("speech-16k-vbr", None), ("run", "run")],
)
def test_the_decoder_starts_with_the_discriminator_beside_the_codec(tmp_path, codec, expected):
    if codec == "run":
        codec, expected = str(tmp_path / "codec"), str(tmp_path / "discriminator")
        Discriminator(periods=[], windows=[64], channels=2).save_pretrained(expected)
    finetune = CodecTrainingSettings(start_discriminator="auto")
    s = OfflineSettings(codec=codec, finetune=finetune, finetune_decoder=3, seed=4)
    made = decoder_settings(s, "mine", name="finetuned", runs="runs")
    assert made.start_discriminator == expected
    assert (made.steps, made.seed, made.model) == (3, 4, {"codec": "mine"})


def test_a_named_discriminator_is_kept() -> None:
    finetune = CodecTrainingSettings(start_discriminator="speech-16k")
    made = decoder_settings(
        OfflineSettings(finetune=finetune, finetune_decoder=1), "mine", name="x", runs="runs"
    )
    assert made.start_discriminator == "speech-16k"


@pytest.mark.parametrize(
    ("more", "error", "message"),
    [
        ({"start_discriminator": "nowhere"}, FileNotFoundError, "'nowhere' has no config.json"),
        ({"decoder_steps": 50}, ValueError, "decoder_steps = 50 exceed steps = 10"),
    ],
)
def test_the_training_of_the_decoder_is_checked_before_the_fit(more, error, message) -> None:
    s = OfflineSettings(finetune=CodecTrainingSettings(**more))
    check_sources(s)  # the decoder does not train
    with pytest.raises(error, match=message):
        check_sources(replace(s, finetune_decoder=10))
