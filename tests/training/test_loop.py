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

from makers.training import (
    accelerator_for,
    make_causal_settings,
    make_model,
    make_settings,
    make_tokens,
    make_training,
    train,
)
from tokgen.modelling.masked import MaskedTransformer
from tokgen.runs.folder import read_history
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.flops import training_flops
from tokgen.training.masked import MaskedTraining
from tokgen.training.settings import LoopSettings


def leave_after(
    folder: Path,
    settings: LoopSettings,
    steps: int,
    dropout: float = 0.0,
    tokens: TokenDataset | None = None,
) -> None:
    """Train for some steps and leave the loop."""
    training = make_training(folder, settings, dropout=dropout, tokens=tokens)
    batches = training.batches()
    for batch in batches:
        if training.step == steps:
            break
        training.descend(training.loss(batch))
    batches.close()


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model" / "model.safetensors")


@pytest.mark.parametrize(
    "settings",
    [
        make_settings(ema=0.7, log_every=3),
        make_settings(crop_seconds_min=0.4, equal_tokens=True, workers=1),
        make_settings(packing=True),
        make_causal_settings(ema=0.7, log_every=3),
        make_causal_settings(gradient_accumulation=2),
    ],
    ids=["averages", "lengths", "packing", "causal", "causal-passes"],
)
@pytest.mark.parametrize("dropout", [0.0, 0.2])
def test_a_run_resumes_exactly(settings, dropout, tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", settings, dropout=dropout)
    leave_after(tmp_path / "cut", settings, 6, dropout)
    cut = train(tmp_path / "cut", settings, dropout=dropout)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert all(a[name].equal(b[name]) for name in a)
    assert cut.history == whole.history
    assert whole.history[0][whole.objective] > whole.history[-1][whole.objective]


@pytest.mark.parametrize("more", [{}, {"packing": True}], ids=["rows", "packing"])
def test_a_run_on_a_variable_bitrate_resumes_exactly(more, tmp_path: Path) -> None:
    tokens, settings = make_tokens(variable=True), make_settings(ema=0.7, **more)
    whole = train(tmp_path / "whole", settings, tokens=tokens)
    leave_after(tmp_path / "cut", settings, 6, tokens=tokens)
    cut = train(tmp_path / "cut", settings, tokens=tokens)
    a, b = weights(tmp_path / "whole"), weights(tmp_path / "cut")
    assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
    assert whole.history == cut.history
    assert 0 <= whole.history[-1]["validation/accuracy"] <= 1
    assert any("accuracy/depth" in line for line in whole.history)
    assert any("accuracy/level2" in line for line in whole.history)


def test_a_model_without_depth_is_not_trained_on_a_variable_bitrate(tmp_path: Path) -> None:
    settings, tokens = make_settings(), make_tokens(variable=True)
    accelerator = accelerator_for(tmp_path, settings)
    with pytest.raises(ValueError, match=r"has not a depth .* MaskedTransformer.for_tokens"):
        MaskedTraining(accelerator, make_model(), tokens, settings, tmp_path)


def test_flops_are_those_of_a_run_that_was_not_cut(tmp_path: Path) -> None:
    whole = train(tmp_path / "whole", make_settings())
    leave_after(tmp_path / "cut", make_settings(), 6)
    assert train(tmp_path / "cut", make_settings()).flops == whole.flops > 0


def test_a_causal_run_reports_its_speed(tmp_path: Path) -> None:
    training = train(tmp_path, make_causal_settings(steps=2))
    told = json.loads((tmp_path / "training.json").read_text())
    assert told["steps"] == 2 and "mfu" not in told
    assert told["steps_per_second"] == pytest.approx(2 / training.seconds)


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


@pytest.mark.parametrize(
    ("make", "message"), [(make_settings, "loss nan"), (make_causal_settings, "bits (nan|inf)")]
)
def test_a_diverging_training_stops(make, message, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=message):
        train(tmp_path, make(learning_rate=1e20, clip=1e20))


def test_ctrl_c_does_not_end_the_workers(tmp_path: Path) -> None:
    settings = make_settings(workers=2)
    training = make_training(tmp_path, settings)
    for batch in training.batches():
        if training.step == 4:
            for process in (*multiprocessing.active_children(), psutil.Process()):
                os.kill(process.pid, signal.SIGINT)
        training.descend(training.loss(batch))
    assert training.interrupted and training.checkpoints.steps() == [4, 5]


@pytest.mark.gpu
def test_between_two_logs_the_host_does_not_wait_for_a_gpu(tmp_path: Path) -> None:
    settings = make_settings(steps=30, log_every=30, checkpoint_every=30, ema=0.9)
    accelerator = accelerator_for(tmp_path, settings, "bf16")
    training = make_training(tmp_path, settings, accelerator)
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
