"""DAC's CPU layers equal those of transformers to the bit."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers import DacModel

from makers.codecs import DAC_STRIDES, make_dac
from tokgen.zoo.adapters.dac_cpu import PointwiseConv1d, Snake


@torch.no_grad()
@pytest.mark.parametrize("shape", [(1, 64, 20000), (2, 7, 33), (1, 128, 70001), (3, 5, 1)])
def test_snake_equals_that_of_transformers(shape: tuple[int, int, int]) -> None:
    from transformers.models.dac.modeling_dac import Snake1d

    torch.manual_seed(0)
    theirs = Snake1d(shape[1])
    theirs.alpha.uniform_(0.1, 3.0)
    x = torch.randn(shape)
    assert torch.equal(Snake(theirs.alpha)(x), theirs(x))


def test_snake_has_gradients() -> None:
    alpha = nn.Parameter(torch.rand(1, 3, 1, dtype=torch.double) + 0.5)
    x = torch.randn(2, 3, 5, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: Snake(alpha)(x), x)


@torch.no_grad()
def test_a_pointwise_convolution_rounds_alike_with_any_number_of_threads() -> None:
    torch.manual_seed(0)
    plain = nn.Conv1d(64, 48, 1)
    ours = PointwiseConv1d(64, 48, 1)
    ours.load_state_dict(plain.state_dict())
    x, before = torch.randn(1, 64, 5000), torch.get_num_threads()
    try:
        torch.set_num_threads(2)  # then torch uses the same kernel
        expected = plain(x)
        assert torch.equal(ours(x), expected)
        torch.set_num_threads(1)
        assert torch.equal(ours(x), expected)
    finally:
        torch.set_num_threads(before)


@torch.no_grad()
@pytest.mark.parametrize("name", DAC_STRIDES)
def test_an_adapted_dac_equals_the_original(name: str) -> None:
    ours = make_dac(name).model  # DacCodec adapts it
    for key, parameter in ours.named_parameters():
        if key.endswith("alpha"):
            parameter.copy_(torch.linspace(0.5, 2.0, parameter.numel()).view_as(parameter))
    plain = DacModel(ours.config).eval()
    plain.load_state_dict(ours.state_dict())
    assert any(isinstance(module, Snake) for module in ours.modules())
    audio, before = torch.randn(1, 1, 50 * ours.config.hop_length) * 0.1, torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        expected = plain.encoder(audio)
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert torch.equal(ours.encoder(audio), expected)
    finally:
        torch.set_num_threads(before)
    assert torch.equal(ours.encode(audio).audio_codes, plain.encode(audio).audio_codes)
