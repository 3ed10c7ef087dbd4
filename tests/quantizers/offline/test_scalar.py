"""Finite scalar quantization: parity with vector-quantize-pytorch, its values and its start."""

import math
import sys

import pytest
import torch
from vector_quantize_pytorch import FSQ

from tokgen.quantizers.offline.base import share_left
from tokgen.quantizers.offline.registry import load_quantizer
from tokgen.quantizers.offline.scalar import FiniteScalar, ResidualFiniteScalar, values_of


def make_frames(n=400, dim=6):
    g = torch.Generator().manual_seed(0)
    return torch.randn(n, dim, generator=g) * torch.linspace(4, 1, dim) + 3


FRAMES = make_frames()


@pytest.mark.parametrize("values", [[8, 5, 3], [4, 4], [7]])
def test_codes_and_rows_are_those_of_the_library(values):
    quantizer = FiniteScalar(dim=6, n_codebooks=2, values=values, steps=20)
    quantizer.fit(FRAMES, progress=False)
    fsq = FSQ(values, num_codebooks=2)
    numbers = torch.cat(
        [
            FRAMES @ weight.T + bias
            for weight, bias in zip(quantizer.in_maps, quantizer.in_biases, strict=True)
        ],
        1,
    )
    assert torch.equal(quantizer.encode(FRAMES), fsq(numbers[None])[1][0].long())
    grid = fsq.indices_to_level_indices(torch.arange(math.prod(values)))
    assert torch.equal(quantizer.grid, fsq._scale_and_shift_inverse(grid))


@pytest.mark.parametrize("kind", [FiniteScalar, ResidualFiniteScalar])
def test_training_improves_on_principal_components(kind):
    left = []
    for steps in (0, 60):
        quantizer = kind(dim=6, n_codebooks=2, values=[5, 4], steps=steps)
        quantizer.fit(FRAMES, progress=False)
        left.append(share_left(FRAMES, quantizer.decode(quantizer.encode(FRAMES))))
    assert left[1] < left[0] < 0.5


def test_more_numbers_than_dimensions():
    quantizer = FiniteScalar(dim=6, n_codebooks=4, values=[3, 3], steps=50)
    quantizer.fit(FRAMES, progress=False)
    assert share_left(FRAMES, quantizer.decode(quantizer.encode(FRAMES))) < 0.3


def test_frames_that_span_few_dimensions():
    frames = FRAMES.clone()
    frames[:, 2:] = 1
    quantizer = ResidualFiniteScalar(dim=6, n_codebooks=2, values=[5, 5, 5], steps=10)
    quantizer.fit(frames, progress=False)
    assert share_left(frames, quantizer.decode(quantizer.encode(frames))) < 0.05


def test_values():
    assert values_of(256) == [4, 4, 4, 4] and values_of(1024) == [4, 4, 4, 4, 4]
    assert values_of(1000) == [8, 5, 5, 5] and values_of(240) == [5, 4, 4, 3]
    assert FiniteScalar(dim=6, values=[5, 5]).codebook_size == 25
    assert FiniteScalar(dim=6, values=[5, 4], codebook_size=20).config["codebook_size"] == 20
    for settings, message in [
        ({"codebook_size": 34}, "codebook_size = 34 is not a product .* 256, 1000 or 1024"),
        ({"values": [5, 2]}, r"values = \[5, 2\]: each must be at least 3"),
        ({"values": []}, r"values = \[\]"),
        ({"values": [64, 64, 64]}, "product at most 65536"),
        ({"values": [5, 5], "codebook_size": 16}, r"codebook_size = 16, but .* make 25"),
        ({"steps": -1}, "steps = -1"),
    ]:
        with pytest.raises(ValueError, match=message):
            FiniteScalar(dim=6, **settings)


def test_a_fitted_quantizer_needs_no_library(tmp_path, monkeypatch):
    quantizer = ResidualFiniteScalar(dim=6, n_codebooks=2, values=[4, 4], steps=5)
    quantizer.fit(FRAMES, progress=False)
    quantizer.save_pretrained(tmp_path)
    for name in ("faiss", "vector_quantize_pytorch"):
        monkeypatch.setitem(sys.modules, name, None)
    loaded = load_quantizer(tmp_path)
    codes = loaded.encode(FRAMES, beam=4)
    assert torch.equal(loaded.decode(codes), quantizer.decode(codes))
    with pytest.raises(ModuleNotFoundError, match=r"vector_quantize_pytorch .*tokgen\[train\]"):
        loaded.fit(FRAMES, progress=False)
