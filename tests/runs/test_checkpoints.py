"""Checkpoints that survive kills."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from tokgen.nn.ema import Ema
from tokgen.runs.checkpoints import Checkpoints


def test_checkpoints_keep_the_newest_and_survive_a_half_written_one(tmp_path):
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(torch.nn.Linear(2, 2))
    checkpoints, averages = Checkpoints(tmp_path), Ema(model, 0.0)
    assert checkpoints.resume(accelerator, averages) == (0, {})
    for step in (1, 2, 3):
        torch.nn.init.constant_(model.weight, float(step))
        checkpoints.save(accelerator, step, {"seen": step}, averages)
    (tmp_path / "partial-4").mkdir()
    (tmp_path / "partial-4" / "model.safetensors").write_text("half")
    assert checkpoints.steps() == [2, 3]
    torch.nn.init.zeros_(model.weight)
    assert checkpoints.resume(accelerator, averages) == (3, {"seen": 3})
    assert model.weight.eq(3).all()
