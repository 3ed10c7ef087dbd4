"""The discriminators' part of a step: how often they train."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from tokgen.codec_training.adversary import Adversary
from tokgen.codec_training.discriminators.kinds import make_discriminator


def adversary(bandwidths: int = 1, **more) -> Adversary:
    torch.manual_seed(0)
    settings = {"kind": "msstft", "windows": [64], "width": 2, "bandwidths": bandwidths}
    critic = make_discriminator(settings)
    optimizer = torch.optim.AdamW(critic.parameters(), lr=1e-2)
    return Adversary(Accelerator(cpu=True), critic, optimizer, 10.0, 100, **more)


def test_discriminators_train_in_a_share_of_the_steps():
    tested = adversary(share=2 / 3, loss="hinge2", features="relative")
    torch.manual_seed(0)
    real, fake = torch.randn(2, 1, 1, 200)
    generator = torch.Generator().manual_seed(0)
    weight, n_trained = next(tested.discriminator.parameters()), 0
    for _ in range(60):
        before = weight.detach().clone()
        losses = tested.step(real, fake.requires_grad_(), generator)
        assert {"adversarial", "feature"} <= set(losses)
        assert ("discriminator" in losses) == (not torch.equal(before, weight))
        n_trained += "discriminator" in losses
    assert 30 <= n_trained <= 50


def test_a_share_of_one_draws_nothing_and_training_alone_is_not_thinned():
    real, fake = torch.randn(2, 1, 1, 200)
    states = []
    for tested in (adversary(), adversary(share=0.5)):
        generator = torch.Generator().manual_seed(0)
        for _ in range(5):
            assert set(tested.step(real, fake, generator, judge=False)) == {"discriminator"}
        states.append(generator.get_state())
    assert torch.equal(*states)


def test_only_the_discriminator_of_a_bandwidth_trains():
    tested = adversary(bandwidths=3)
    before = {k: v.clone() for k, v in tested.discriminator.state_dict().items()}
    real, fake = torch.randn(2, 1, 1, 200)
    tested.step(real, fake, torch.Generator().manual_seed(0), bandwidth=1)
    tested.step(real, fake, torch.Generator().manual_seed(0), bandwidth=1)
    state = tested.discriminator.state_dict()
    assert {k.split(".")[1] for k, v in state.items() if not v.equal(before[k])} == {"1"}
