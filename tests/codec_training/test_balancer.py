"""The balancer: shares, averages, processes, state, and the gradients of the reference."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from makers.vectors import load_vectors
from tokgen.codec_training.balancer import Balancer


def losses_of(y: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Three losses of very different size."""
    return {
        "t": (y - target).abs().mean(),
        "f": 50 * (y - target).square().sum(),
        "g": -(1e-3 * y.tanh()).mean(),
    }


def leaf(seed: int) -> Tensor:
    return torch.randn(3, 1, 20, generator=torch.Generator().manual_seed(seed), requires_grad=True)


WEIGHTS = {"t": 0.1, "f": 1.0, "g": 3.0}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("default", {}),
        ("whole_batch", {"per_item": False}),
        ("total2_ema09", {"total": 2.0, "decay": 0.9}),
        ("plain", {"rescale": False}),
    ],
)
def test_gradients_of_the_reference(name, more):
    """encodec's Balancer over four steps."""
    v = load_vectors("encodec_balancer")
    balancer = Balancer(WEIGHTS, **more)
    for y, target, expected in zip(v["ys"], v["targets"], v[f"grad_{name}"], strict=True):
        y = y.clone().requires_grad_()
        found = balancer.gradient(losses_of(y, target), y)
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_first_step_divides_by_its_own_norms():
    balancer, y = Balancer({"a": 1.0, "b": 3.0}), leaf(0)
    balancer.gradient({"a": 1e6 * y[..., 0].sum(), "b": 1e-6 * y[..., 1].sum()}, y)
    assert balancer.shares == pytest.approx({"a": 0.25, "b": 0.75})
    assert balancer.weight_shares == {"a": 0.25, "b": 0.75}
    gradient = balancer.gradient({"b": y.sum()}, y)  # shares of the losses that are given
    assert balancer.weight_shares == {"b": 1.0} and gradient.norm() > 0


def test_averages_are_unbiased_and_remember_earlier_norms():
    balancer, y = Balancer({"a": 1.0}, decay=0.5), leaf(0)
    sizes = [float(balancer.gradient({"a": k * y[..., 0].sum()}, y)[0].norm()) for k in (1, 4)]
    assert sizes == pytest.approx([1.0, 4 / ((0.5 * 1 + 4) / 1.5)])
    plain = Balancer({"a": 1.0}, decay=1.0)
    sizes = [float(plain.gradient({"a": k * y[..., 0].sum()}, y)[0].norm()) for k in (1, 3)]
    assert sizes == pytest.approx([1.0, 3 / 2])


def test_loss_has_the_balanced_gradient_beside_losses_that_stay_outside():
    """One backward pass, as DistributedDataParallel needs."""
    weight = torch.tensor([2.0], requires_grad=True)
    x = leaf(1).detach()
    y, outside = weight * x, 0.5 * weight.square().sum()
    balancer, again = Balancer(WEIGHTS), Balancer(WEIGHTS)
    losses = losses_of(y, x)
    (balancer.loss(losses, y) + outside).backward()
    expected = (again.gradient(losses, y) * x).sum() + weight.detach()
    torch.testing.assert_close(weight.grad, expected)


def test_norms_are_averaged_over_processes():
    def mean(norms: Tensor) -> Tensor:
        return norms + torch.tensor([1.0])  # as if another process had norms larger by 2

    balancer, y = Balancer({"a": 1.0}, mean=mean), leaf(0)
    gradient = balancer.gradient({"a": y[..., 0].sum()}, y)
    assert float(gradient[0].norm()) == pytest.approx(1 / (1 + 1))


def test_state_continues_exactly_through_json():
    whole, cut = Balancer(WEIGHTS, decay=0.9), Balancer(WEIGHTS, decay=0.9)
    for step in range(6):
        y = leaf(step)
        losses = losses_of(y, leaf(10 + step).detach())
        if step == 3:
            state = json.loads(json.dumps(cut.state_dict()))
            cut = Balancer(WEIGHTS, decay=0.9)
            cut.load_state_dict(state)
        assert torch.equal(whole.gradient(losses, y), cut.gradient(losses, y))


def test_losses_without_weights_and_a_wrong_decay_are_refused():
    y = leaf(0)
    with pytest.raises(ValueError, match="none of the losses b, c has a weight"):
        Balancer({"a": 1.0, "b": 0.0}).gradient({"b": y.sum(), "c": y.sum()}, y)
    with pytest.raises(ValueError, match=r"decay = 1\.5"):
        Balancer({"a": 1.0}, decay=1.5)


def test_a_gradient_that_is_not_finite_ends_the_training_and_spoils_no_average():
    balancer, y = Balancer({"a": 1.0, "b": 1.0}), leaf(0)
    losses = {"a": y.sum(), "b": y.square().sum()}
    balancer.gradient(losses, y)
    before = balancer.state_dict()
    losses["b"] = y.sum() * float("nan")
    with pytest.raises(FloatingPointError, match="the loss 'b' has the norm nan, but must be"):
        balancer.gradient(losses, y)
    assert balancer.state_dict() == before
