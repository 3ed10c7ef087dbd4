"""Crops drawn ahead by other processes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tokgen.codec_training.crops import open_crops
from tokgen.codec_training.feed import StepCrops, feed
from tokgen.codec_training.loop import CodecTraining
from tokgen.codec_training.settings import CodecTrainingSettings, SharedSettings
from tokgen.codec_training.train import train_codec
from tokgen.zoo.lookup import load_codec


@pytest.fixture
def settings(tiny_corpus) -> SharedSettings:
    return SharedSettings(
        corpora=[str(tiny_corpus)], batch_size=2, gain_db=6.0, speed=0.1, phase_augmentation=True
    )


def drawn(settings: SharedSettings, crops, steps: range):
    """Each step's audio, and a number of its generator."""
    pairs = feed(crops, settings, 1600, steps)
    return [(audio, float(torch.rand((), generator=generator))) for audio, generator in pairs]


def test_crops_depend_on_the_step_alone(settings, tmp_path):
    crops = open_crops(settings, 16000, tmp_path)
    torch.manual_seed(0)
    before = torch.get_rng_state()
    here = drawn(settings, crops, range(6))
    assert torch.get_rng_state().equal(before)
    for other, steps in ((2, range(6)), (1, range(2, 6)), (0, range(4, 6))):
        there = drawn(replace(settings, workers=other), crops, steps)
        assert len(there) == len(steps)
        for (a, x), (b, y) in zip(here[steps.start :], there, strict=True):
            assert a.shape == (2, 1, 1600) and a.equal(b) and x == y
    assert not here[0][0].equal(here[1][0]) and here[0][1] != here[1][1]
    audio, _ = StepCrops(crops, settings, 1600)[3]
    assert audio.equal(here[3][0])


def test_a_negative_number_of_workers_is_refused():
    with pytest.raises(ValueError, match=r"workers is -1, but must be at least 0$"):
        SharedSettings(workers=-1)


def test_a_run_goes_on_with_other_workers_to_the_same_weights(tiny_corpus, tmp_path, monkeypatch):
    settings = CodecTrainingSettings(
        name="whole", runs=str(tmp_path), corpora=[str(tiny_corpus)], steps=4, batch_size=2,
        model={"width": 8, "encoder_depth": 1, "decoder_depth": 1, "latent_dim": 4,
               "n_codebooks": 1, "codebook_size": 4, "codebook_dim": 2},
        discriminator={"periods": [], "windows": [256], "channels": 2}, seconds=0.25,
        validation_min_seconds=0.0, validate_every=4, checkpoint_every=2, mixed_precision="no",
    )  # fmt: skip
    train_codec(settings)

    def stop(self, values):
        self.interrupted = self.step == 2

    parts = replace(settings, name="parts", workers=2)
    with monkeypatch.context() as patch:
        patch.setattr(CodecTraining, "log", stop)
        train_codec(parts)
    assert (tmp_path / "parts/checkpoints/step-2").is_dir()
    train_codec(replace(parts, workers=1))
    hashes = {load_codec(tmp_path / n / "codec").spec.weight_hash for n in ("whole", "parts")}
    assert len(hashes) == 1
