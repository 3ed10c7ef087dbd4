"""Two processes on the CPU train as one does, with the configs in recipes/accelerate."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from makers.recipes import ROOT, run
from makers.training import make_settings, train
from tokgen.runs.folder import read_history

WORKER = ROOT / "tests" / "makers" / "training.py"
SETTINGS = {"steps": 10, "ema": 0.6, "gradient_accumulation": 2, "log_every": 1}


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in read_history(folder / "history.jsonl")]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.fixture(scope="module")
def alone(tmp_path_factory) -> Path:
    """One process with the whole batch."""
    folder = tmp_path_factory.mktemp("alone")
    train(folder, make_settings(**SETTINGS, batch_size=6))
    return folder


def train_in_two(folder: Path, kind: str, *stop: int, code: int = 0) -> str:
    halves = json.dumps({**SETTINGS, "batch_size": 3})
    return run(WORKER, folder, halves, kind, *stop, code=code, config="ddp_cpu.yaml")


@pytest.mark.parametrize("kind", ["ddp", pytest.param("fsdp", marks=pytest.mark.slow)])
def test_two_processes_with_half_the_batch_train_as_one(kind, alone, tmp_path):
    out = train_in_two(tmp_path, kind)
    assert "2 processes" in out and ("FSDP" in out) == (kind == "fsdp")
    ours, theirs = losses(tmp_path), losses(alone)
    assert len(ours) == 10 and ours[0] > ours[-1]
    assert ours == pytest.approx(theirs, rel=1e-4)
    first, second = (read_history(f / "history.jsonl")[-1] for f in (tmp_path, alone))
    assert first == pytest.approx(second, rel=1e-3)  # accuracies and validation too
    torch.testing.assert_close(weights(tmp_path), weights(alone), atol=1e-4, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["ddp", "fsdp"])
def test_two_processes_resume_after_a_kill(kind, tmp_path):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    train_in_two(whole, kind)
    train_in_two(cut, kind, 6, code=1)
    assert (cut / "checkpoints" / "step-4").is_dir() and not (cut / "model").exists()
    assert "continuing at step 4" in train_in_two(cut, kind)
    a, b = weights(whole), weights(cut)
    assert all(a[name].equal(b[name]) for name in a)
    assert losses(cut) == losses(whole)


@pytest.mark.parametrize("path", sorted((ROOT / "recipes/accelerate").glob("*.yaml")), ids=str)
def test_configs_are_valid_for_accelerate(path):
    from accelerate.commands.config.config_args import load_config_from_file

    config = load_config_from_file(str(path))
    assert config.num_processes == 2 and config.use_cpu == ("cpu" in path.name)
    assert (config.distributed_type == "FSDP") == bool(config.fsdp_config)
