"""Seeds of steps."""

from __future__ import annotations

import torch

from tokgen.runs.accelerator import step_seed


def test_step_seeds_differ_and_repeat():
    seeds = {step_seed(0, step, part) for step in range(50) for part in range(4)}
    assert len(seeds) == 200
    assert step_seed(3, 4) == step_seed(3, 4)
    torch.Generator().manual_seed(step_seed(3, 4))
