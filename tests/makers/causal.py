"""Causal models of codes with random weights."""

from __future__ import annotations

import torch

from tokgen.modelling.causal_depth import CausalDepthNetwork

LEVELS, SIZE = 3, 11
SIZES = {
    "dim": 8, "hidden": 12, "dilations": (1, 2), "taps": 2, "code_dim": 6, "level_hidden": 10,
    "head_dim": 5,
}  # fmt: skip


def make_depth_network(**more: object) -> CausalDepthNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        sizes = {"n_codebooks": LEVELS, "codebook_size": SIZE, **SIZES, **more}
        model = CausalDepthNetwork(**sizes)
        with torch.no_grad():
            for value in (model.first, model.level_bias, model.head_bias, model.head):
                value.normal_()  # so that no ReLU hides a dependence, and scores differ
            model.level_bias += 2
            for layer in model.widen:
                layer.bias += 2
    return model.eval()
