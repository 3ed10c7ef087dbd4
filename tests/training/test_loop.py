"""The training loop: exact resume, averaged weights, speed, compiled code."""

from __future__ import annotations

import json
import multiprocessing
import os
import signal
from pathlib import Path

import psutil
import pytest
import torch
from safetensors.torch import load_file

from makers.training import make_model, make_settings, make_tokens, train
from tokgen.modelling.masked import MaskedTransformer
from tokgen.runs.accelerator import make_accelerator
from tokgen.runs.folder import read_history
from tokgen.training.flops import training_flops
from tokgen.training.loop import Training
from tokgen.training.settings import TrainingSettings


def leave_after(folder: Path, settings: TrainingSettings, steps: int) -> None:
    """Train for some steps and leave the loop."""
    accelerator = make_accelerator(
        folder,
        mixed_precision="no",
        tracker="none",
        gradient_accumulation=settings.gradient_accumulation,
    )
    training = Training(accelerator, make_model(), make_tokens(), settings, folder)
    batches = training.batches()
    for batch in batches:
        if training.step == steps:
            break
        training.descend(training.loss(batch))
    batches.close()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize(
    "more",
    [
        {"ema": 0.7, "log_every": 3},
        {"crop_seconds_min": 0.4, "equal_tokens": True, "workers": 1},
        {"packing": True},
    ],
    ids=lambda more: next(iter(more)),
)
def test_a_run_resumes_exactly(more, tmp_path: Path) -> None:
    settings = make_settings(**more)
    whole = train(tmp_path / "whole", settings)
    leave_after(tmp_path / "cut", settings, 6)
    cut = train(tmp_path / "cut", settings)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(a[name].equal(b[name]) for name in a)
    assert [line["loss"] for line in cut.history] == [line["loss"] for line in whole.history]
    assert cut.flops == whole.flops
    assert whole.history[0]["loss"] > whole.history[-1]["loss"]


def test_a_damaged_checkpoint_costs_steps_but_no_weights(tmp_path: Path) -> None:
    settings = make_settings(checkpoint_every=2, ema=0.7)
    whole = train(tmp_path / "whole", settings)
    leave_after(tmp_path / "cut", settings, 7)
    newest = tmp_path / "cut" / "checkpoints" / "step-6"
    os.truncate(newest / "optimizer.bin", 1000)
    with pytest.warns(UserWarning, match=r"step-6 is damaged \(optimizer.bin has 1000 bytes, not"):
        cut = train(tmp_path / "cut", settings)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(a[name].equal(b[name]) for name in a)
    assert cut.history == whole.history


def test_averages_are_validated_and_saved(tmp_path: Path) -> None:
    plain = train(tmp_path / "plain", make_settings())
    averaged = train(tmp_path / "averaged", make_settings(ema=0.95))
    trained = averaged.model.state_dict()
    for name, value in plain.model.state_dict().items():
        assert trained[name].equal(value)  # averaging does not change the training
    a, b = weights(tmp_path / "plain"), weights(tmp_path / "averaged")
    assert not a["head_weight"].equal(b["head_weight"])
    for one, other in zip(plain.history, averaged.history, strict=True):
        assert one["loss"] == other["loss"]
        assert one.get("validation/loss", 0) < other.get("validation/loss", 1)  # it lags behind


def test_speed_is_saved(tmp_path: Path) -> None:
    training = train(tmp_path, make_settings(workers=1))
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["steps"] == 10 and told["mfu"] is None
    assert 0 < told["waiting_share"] <= 1
    counts = [training.data[j].counts for j in range(10)]
    flops = sum(training_flops(training.model, c) for c in counts)
    assert training.flops == flops
    assert told["model_flops_per_second"] == pytest.approx(flops / told["seconds"])


def test_a_diverging_training_stops(tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match="loss nan"):
        train(tmp_path, make_settings(learning_rate=1e20, clip=1e20))


def test_ctrl_c_does_not_end_the_workers(tmp_path: Path) -> None:
    settings = make_settings(workers=2)
    accelerator = make_accelerator(
        tmp_path,
        mixed_precision="no",
        tracker="none",
        gradient_accumulation=settings.gradient_accumulation,
    )
    training = Training(accelerator, make_model(), make_tokens(), settings, tmp_path)
    for batch in training.batches():
        if training.step == 4:
            for process in (*multiprocessing.active_children(), psutil.Process()):
                os.kill(process.pid, signal.SIGINT)
        training.descend(training.loss(batch))
    assert training.interrupted and training.checkpoints.steps() == [4, 5]


@pytest.mark.gpu
def test_between_two_logs_the_host_does_not_wait_for_a_gpu(tmp_path: Path) -> None:
    settings = make_settings(steps=30, log_every=30, checkpoint_every=30, ema=0.9)
    accelerator = make_accelerator(
        tmp_path,
        mixed_precision="bf16",
        tracker="none",
        gradient_accumulation=settings.gradient_accumulation,
    )
    training = Training(accelerator, make_model(), make_tokens(), settings, tmp_path)
    batches = training.batches()
    try:
        for batch in batches:
            if training.step == 5:
                torch.cuda.set_sync_debug_mode("error")
            if training.step == 20:
                break
            training.descend(training.loss(batch))
    finally:
        torch.cuda.set_sync_debug_mode("default")
        batches.close()
    assert training.step == 20


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"crop_seconds_min": 0.4}])
def test_compiled_training_is_the_same_with_few_compilations(more, tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    train(tmp_path / "plain", make_settings(**more))
    torch._dynamo.reset()
    counters.clear()
    train(tmp_path / "compiled", make_settings(compile=True, **more))
    plain, compiled = (
        [line["loss"] for line in read_history(tmp_path / n / "history.jsonl")]
        for n in ("plain", "compiled")
    )
    assert compiled == pytest.approx(plain, rel=1e-3)
    assert counters["stats"]["unique_graphs"] <= 6
    model = MaskedTransformer.from_pretrained(tmp_path / "compiled" / "model")
    assert set(model.state_dict()) == set(weights(tmp_path / "plain"))
