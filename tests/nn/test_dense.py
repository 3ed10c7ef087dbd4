from __future__ import annotations

import pytest
import torch
from torch import nn

from tokgen.nn.dense import Dense, argmax, only_inputs, use_onednn


@pytest.fixture
def layer() -> Dense:
    torch.manual_seed(0)
    return Dense(96, 40)


@pytest.fixture
def plain(layer: Dense) -> nn.Linear:
    plain = nn.Linear(96, 40)
    plain.load_state_dict(layer.state_dict())
    return plain


@torch.no_grad()
def test_it_is_a_linear_layer(layer: Dense, plain: nn.Linear) -> None:
    x = torch.randn(3, 50, 96)
    assert torch.allclose(layer(x), plain(x), atol=1e-5)
    assert layer(x).shape == (3, 50, 40)


def test_no_rows_are_no_rows(layer: Dense) -> None:
    assert layer(torch.zeros(2, 0, 96)).shape == (2, 0, 40)


@torch.no_grad()
def test_rows_do_not_depend_on_how_many_there_are_nor_on_threads(layer: Dense) -> None:
    x = torch.randn(1000, 96)
    whole, before = layer(x), torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            for start, stop in ((0, 2), (5, 70), (64, 128), (100, 999), (7, 1000)):
                assert torch.equal(layer(x[start:stop]), whole[start:stop])
    finally:
        torch.set_num_threads(before)


def test_gradients_are_those_of_a_linear_layer(layer: Dense, plain: nn.Linear) -> None:
    ours = torch.randn(3, 5, 96, requires_grad=True)
    theirs = ours.detach().clone().requires_grad_()
    for module, x in ((layer, ours), (plain, theirs)):
        module(x).square().sum().backward()
    assert torch.allclose(ours.grad, theirs.grad, atol=1e-4)
    assert torch.allclose(layer.weight.grad, plain.weight.grad, atol=1e-3)
    assert torch.allclose(layer.bias.grad, plain.bias.grad, atol=1e-3)


def test_inputs_alone_have_the_same_gradient(layer: Dense) -> None:
    ours = torch.randn(5, 96, requires_grad=True)
    expected = torch.autograd.grad(layer(ours).square().sum(), ours)[0]
    with only_inputs():
        out = layer(ours)
    out.square().sum().backward()
    assert torch.equal(ours.grad, expected)
    assert layer.weight.grad is None and layer.bias.grad is None
    layer(ours).sum().backward()
    assert layer.weight.grad is not None


def test_only_gradients_that_are_wanted_are_made(layer: Dense) -> None:
    layer.weight.requires_grad_(False)
    x = torch.randn(5, 96)
    layer(x).sum().backward()
    assert layer.weight.grad is None and x.grad is None
    assert torch.allclose(layer.bias.grad, torch.full((40,), 5.0))


def test_gradients_change_no_value(layer: Dense) -> None:
    x = torch.randn(7, 96)
    with torch.no_grad():
        expected = layer(x)
    assert torch.equal(layer(x), expected)


@torch.no_grad()
def test_autocast_and_other_types_are_left_to_torch(layer: Dense, plain: nn.Linear) -> None:
    x = torch.randn(5, 96)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer(x), plain(x)) and layer(x).dtype == torch.bfloat16
    assert torch.equal(layer.double()(x.double()), plain.double()(x.double()))


def test_a_network_keeps_its_weights_and_their_names() -> None:
    class Own(nn.Linear):
        pass

    network = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Sequential(Own(4, 4), nn.Linear(4, 2)))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    use_onednn(network)
    assert [type(network[0]), type(network[2][0]), type(network[2][1])] == [Dense, Own, Dense]
    after = network.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_argmax_is_that_of_torch(dtype: torch.dtype) -> None:
    scores = torch.randint(0, 9, (4, 30, 50), generator=torch.manual_seed(0)).to(dtype)
    scores[0, 0, 7] = torch.nan
    assert torch.equal(argmax(scores), scores.argmax(-1))
    assert argmax(scores[0, 0]).item() == 7
