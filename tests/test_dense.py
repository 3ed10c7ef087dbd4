from __future__ import annotations

import pytest
import torch
from torch import nn

from tokgen.dense import Dense, use_onednn


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
    x = torch.randn(5, 96)
    layer(x).square().sum().backward()
    plain(x).square().sum().backward()
    assert torch.equal(layer.weight.grad, plain.weight.grad)
    assert torch.equal(layer.bias.grad, plain.bias.grad)


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
