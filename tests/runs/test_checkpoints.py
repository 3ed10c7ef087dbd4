"""Checkpoints that survive kills."""

from __future__ import annotations

import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from accelerate import Accelerator

from tokgen.nn.ema import Ema
from tokgen.runs.checkpoints import FILES, Checkpoints


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


@pytest.fixture
def saved(tmp_path):
    """Checkpoints of steps 1 to 3 of a linear layer, whose weights equal the step."""
    accelerator = Accelerator(cpu=True)
    model = accelerator.prepare(torch.nn.Linear(2, 2))
    optimizer = accelerator.prepare(torch.optim.AdamW(model.parameters()))
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    checkpoints, averages = Checkpoints(tmp_path / "checkpoints"), Ema(model, 0.5)
    for step in (1, 2, 3):
        torch.nn.init.constant_(model.weight, float(step))
        checkpoints.save(accelerator, step, {"seen": step}, averages)
    return accelerator, model, checkpoints, averages


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def zero(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


@pytest.mark.parametrize("damage", [truncate, empty, zero, Path.unlink])
@pytest.mark.parametrize("number", range(6))
def test_a_damaged_checkpoint_falls_back_to_the_one_before(damage, number, saved):
    accelerator, model, checkpoints, averages = saved
    files = sorted(p for p in checkpoints.path(3).rglob("*") if p.is_file() and p.name != FILES)
    assert len(files) == 5  # averages, extra.json, model, optimizer and random states
    path = files[number] if number < 5 else checkpoints.path(3) / FILES
    damage(path)
    if damage is Path.unlink and number == 5:  # as saved by earlier versions
        assert checkpoints.resume(accelerator, averages) == (3, {"seen": 3})
        return
    with pytest.warns(UserWarning, match=rf"step-3 is damaged \({path.name} .*: it is not used"):
        assert checkpoints.resume(accelerator, averages) == (2, {"seen": 2})
    assert model.weight.eq(2).all()
    checkpoints.save(accelerator, 2, {"seen": 2}, averages)
    assert checkpoints.steps() == [2]


def test_only_damaged_checkpoints_are_an_error(saved):
    accelerator, _, checkpoints, averages = saved
    for step in checkpoints.steps():
        (checkpoints.path(step) / "model.safetensors").unlink()
    with (
        pytest.warns(UserWarning, match="is damaged"),
        pytest.raises(ValueError, match="has only damaged checkpoints: delete it to start over"),
    ):
        checkpoints.resume(accelerator, averages)


def test_a_full_disk_leaves_the_checkpoints_and_no_partial_folder(saved):
    accelerator, _, checkpoints, averages = saved
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300, limits[1]))
    try:
        with pytest.raises(
            OSError, match=r"step-4: writing failed, .*; make room .*, then run the same"
        ):
            checkpoints.save(accelerator, 4, {}, averages)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert sorted(p.name for p in checkpoints.folder.iterdir()) == ["step-2", "step-3"]


def test_a_deleted_run_is_not_made_again(saved):
    accelerator, _, checkpoints, averages = saved
    shutil.rmtree(checkpoints.folder)
    with pytest.raises(FileNotFoundError, match=r"checkpoints was deleted while it was in use"):
        checkpoints.save(accelerator, 4, {}, averages)
    assert not checkpoints.folder.exists()
