"""The formula for model FLOPs, checked against PyTorch's counter."""

from __future__ import annotations

import pytest
import torch

from ceilings import count_flops
from makers.training import make_model
from tokgen.modelling.depths import join_depth
from tokgen.modelling.masking import masked_cross_entropy, training_mask
from tokgen.training.flops import Counts, peak_flops, training_flops


@pytest.mark.parametrize("embedding", ["codes", "learned"])
def test_formula_equals_what_pytorch_counts(embedding: str) -> None:
    model = make_model(embedding=embedding, code_dim=4, dim=48, depth=3).train()
    codes = torch.randint(0, 20, (2, 3, 30), generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([30, 30])
    mask = training_mask(codes, lengths, model.mask_id, torch.Generator().manual_seed(0))

    def step() -> None:
        logits = model(
            mask.tokens,
            torch.randn(2, 4, 30),
            drop_conditioning=torch.tensor([True, False]),
            level=mask.level,
            positions=mask.target,
        )
        masked_cross_entropy(logits, codes, mask).backward()

    pairs, width, depth = 2 * 30**2, 2 * 32, 3
    counts = Counts(frames=60, pairs=pairs, targets=int(mask.target.sum()))
    # PyTorch also counts flash attention's recomputation of scores in the backward pass
    assert count_flops(step) == training_flops(model, counts) + 2 * pairs * width * depth


def test_the_depth_counts_as_pytorch_counts() -> None:
    model = make_model(rate={"level": 1.0}, dim=48).train()
    draw = torch.Generator().manual_seed(0)
    depth = torch.randint(1, 4, (4, 30), generator=draw)
    tokens = join_depth(torch.randint(0, 20, (4, 3, 30), generator=draw), depth)
    mask = training_mask(tokens, torch.full((4,), 30), model.mask_id, draw, variable_depth=True)

    def step() -> None:
        told, drop = torch.randn(4, 4, 30), torch.tensor([True, False, False, False])
        logits = model(
            mask.tokens, told, drop_conditioning=drop, level=mask.level, positions=mask.target
        )
        masked_cross_entropy(logits, tokens, mask).backward()

    pairs = 4 * 30**2
    counts = Counts(frames=120, pairs=pairs, targets=int(mask.target.sum()))
    assert count_flops(step) == training_flops(model, counts) + 2 * pairs * (2 * 32) * 2


def test_padding_and_visible_positions_do_not_count() -> None:
    model = make_model()
    few, more = Counts(10, 100, 3), Counts(10, 100, 8)
    head = model.head_weight[0].numel()
    assert training_flops(model, more) - training_flops(model, few) == 2 * 3 * 5 * head
    assert training_flops(model, Counts(0, 0, 0)) == 0


def test_peaks_are_known_by_name_for_half_precision() -> None:
    assert peak_flops("NVIDIA H200", "bf16") == 989e12
    assert peak_flops("NVIDIA H100 PCIe", "fp16") == 756e12
    assert peak_flops("NVIDIA A100-SXM4-80GB", "bf16") == 312e12
    assert peak_flops("NVIDIA H200", "no") is None
    assert peak_flops("cpu", "bf16") is None
    assert peak_flops("A GPU of tomorrow", "bf16") is None
