"""Adversarial losses: values at their optimum, and those of the reference."""

from __future__ import annotations

import pytest
import torch

from makers.vectors import load_vectors
from tokgen.codec_training.adversarial_losses import (
    ADVERSARIAL,
    FEATURE,
    adversarial_loss,
    discriminator_loss,
    feature_loss,
    hinge2_loss,
    hinge_loss,
    relative_feature_loss,
)


def test_gan_losses_have_their_optimum_where_they_should():
    ones, zeros = [[torch.zeros(1), torch.ones(2, 1)]], [[torch.zeros(1), torch.zeros(2, 1)]]
    assert discriminator_loss(real=ones, fake=zeros) == 0
    assert discriminator_loss(real=zeros, fake=ones) == 2
    assert adversarial_loss(ones) == 0 and adversarial_loss(zeros) == 1
    assert feature_loss(ones, ones) == 0
    shifted = [[torch.full((1,), 2.0), torch.ones(2, 1)]]
    assert feature_loss(ones, shifted) == 2


def test_losses_of_half_precision_maps_are_in_float32():
    torch.manual_seed(0)
    maps = [[[torch.randn(64).bfloat16() for _ in range(3)]] for _ in range(2)]
    exact = [[[m.float() for m in part] for part in one] for one in maps]
    pairs = [loss for loss, _ in ADVERSARIAL.values()]
    for loss in (*pairs, *FEATURE.values()):
        assert loss(*maps).dtype == torch.float32
        assert torch.equal(loss(*maps), loss(*exact))
    for _, loss in ADVERSARIAL.values():
        assert torch.equal(loss(maps[0]), loss(exact[0]))


def test_hinge_losses_stop_at_their_margin():
    def maps(value: float) -> list[list[torch.Tensor]]:
        return [[torch.ones(3), torch.full((2, 1), value)] for _ in range(2)]

    loss = ADVERSARIAL["hinge"][0]
    assert loss(maps(1.5), maps(-2.0)) == 0
    assert loss(maps(0.0), maps(0.5)) == 2.5  # a mean over discriminators
    assert hinge2_loss(maps(3.0)) == 0 and hinge2_loss(maps(-1.0)) == 2
    assert hinge_loss(maps(3.0)) == -3


def test_relative_feature_loss_does_not_see_the_scale_of_the_maps():
    torch.manual_seed(0)
    real, fake = ([[torch.randn(4, 5), torch.ones(1)]] for _ in range(2))
    scaled = [[[100 * m for m in part] for part in one] for one in (real, fake)]
    loss = relative_feature_loss(real, fake)
    torch.testing.assert_close(relative_feature_loss(*scaled), loss)
    assert relative_feature_loss(real, real) == 0
    silent = [[torch.zeros(4, 5), torch.ones(1)]]
    assert relative_feature_loss(silent, fake).isfinite()


@pytest.mark.parametrize("name", ["hinge", "hinge2"])
def test_hinge_losses_of_the_reference(name):
    v = load_vectors("audiocraft_losses")
    real, fake = ([[v[f"logit_{kind}{i}"]] for i in range(3)] for kind in ("real", "fake"))
    of_discriminator, of_codec = ADVERSARIAL[name]
    expected = v[f"disc_{name}"].float(), v[f"gen_{name}"].float()
    torch.testing.assert_close((of_discriminator(real, fake), of_codec(fake)), expected)


def test_feature_losses_of_the_reference():
    v = load_vectors("audiocraft_losses")
    real, fake = (
        [[*(v[f"fmap_{kind}{i}_{j}"] for j in range(2)), torch.zeros(1)] for i in range(3)]
        for kind in ("real", "fake")
    )
    expected = v["feat_relative_paper"].float()
    torch.testing.assert_close(relative_feature_loss(real, fake), expected)
    mean = feature_loss(real, fake) / 6  # layers, of which DAC takes the sum
    torch.testing.assert_close(mean, v["feat_l1"].float())
