"""The choice of an idempotence loss's weight: the largest that holds, resumed, or a clear error."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path

import pytest
from accelerate import Accelerator

from tokgen.codec_training.sweep import choose_weight, holding_weights
from tokgen.codec_training.validation import Tuned


def scored(loss: float) -> Tuned:
    return Tuned(loss, 1.0, 1.0, 2.5, 2.0, 9.0, 0.5, 0.9, n=3, n_failed=0)


def choose(path: Path, losses: Mapping[float, float | None], tolerance: float = 0.05):
    """Choose among weights with these validation losses; None is an interruption."""
    tried: list[float] = []

    def tune(weight: float) -> Tuned | None:
        tried.append(weight)
        loss = losses[weight]
        return None if loss is None else scored(loss)

    accelerator = Accelerator(cpu=True)
    weight = choose_weight(list(losses), tolerance, lambda: scored(10.0), tune, path, accelerator)
    return weight, tried


def test_the_largest_weight_that_holds_is_chosen(tmp_path: Path) -> None:
    losses = {1.0: 9.0, 10.0: 10.4, 100.0: 10.6, 1000.0: math.nan}
    assert choose(tmp_path / "a.json", losses) == (10.0, list(losses))
    assert choose(tmp_path / "b.json", losses, 0.06)[0] == 100.0
    trials = {weight: scored(loss) for weight, loss in losses.items()}
    assert holding_weights(trials, scored(10.0), 0.05) == [1.0, 10.0]


def test_an_interrupted_sweep_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    assert choose(path, {1.0: 9.0, 10.0: None}) == (None, [1.0, 10.0])
    assert choose(path, {1.0: math.inf, 10.0: 9.5}) == (10.0, [10.0])  # 1 was tried before
    assert set(json.loads(path.read_text())) == {"untuned", "1", "10"}
    assert choose(path, {1.0: math.inf, 10.0: math.inf}) == (10.0, [])


def test_no_weight_that_holds_is_an_error_with_what_to_do(tmp_path: Path) -> None:
    path = tmp_path / "sweep.json"
    said = r"no weight of \[1.0, 10.0\] holds the validation loss of 10 within 5%: give smaller"
    with pytest.raises(SystemExit, match=said):
        choose(path, {1.0: 10.6, 10.0: 20.0})
    assert choose(path, {1.0: 0.0, 10.0: 0.0}, tolerance=0.06) == (1.0, [])
