"""Adversarial losses: values at their optimum."""

from __future__ import annotations

import torch

from tokgen.codec_training.adversarial_losses import (
    adversarial_loss,
    discriminator_loss,
    feature_loss,
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
    for loss in (discriminator_loss, feature_loss):
        assert loss(*maps).dtype == torch.float32
        assert torch.equal(loss(*maps), loss(*exact))
    assert torch.equal(adversarial_loss(maps[0]), adversarial_loss(exact[0]))
