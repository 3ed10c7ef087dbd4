"""Averaged weights: the formula, in the model, saved and loaded."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tokgen.nn.ema import Ema


def test_average_follows_the_weights_and_stands_in_for_them(tmp_path) -> None:
    model = nn.Linear(3, 2)
    ema = Ema(model, 0.9)
    wanted = model.weight.detach().clone()
    for _ in range(5):
        with torch.no_grad():
            model.weight.add_(1.0)
        ema.update()
        wanted = 0.9 * wanted + 0.1 * model.weight.detach()
    now, x = model.weight.detach().clone(), torch.ones(1, 3)
    with ema.in_place():
        torch.testing.assert_close(model.weight.detach(), wanted)
        averaged = model(x)
    assert torch.equal(model.weight, now)
    assert not torch.allclose(model(x), averaged)

    ema.save(tmp_path / "ema.safetensors")
    fresh = nn.Linear(3, 2)
    again = Ema(fresh, 0.9)
    again.load(tmp_path / "ema.safetensors")
    with again.in_place():
        assert torch.equal(fresh(x), averaged)


def test_shares_of_one_over_n_give_the_mean() -> None:
    model = nn.Linear(1, 1)
    seen = []
    averages = Ema(model, 0.0, keep=True)
    for n in range(1, 6):
        nn.init.constant_(model.weight, float(n * n))
        averages.update(1 / n)
        seen.append(n * n)
    with averages.in_place():
        assert model.weight.item() == pytest.approx(sum(seen) / len(seen))
    assert model.weight.item() == 25


def test_without_decay_or_keep_nothing_is_averaged() -> None:
    model = nn.Linear(1, 1)
    averages = Ema(model, 0.0)
    nn.init.constant_(model.weight, 2.0)
    averages.update(0.5)
    with averages.in_place():
        assert model.weight.item() == 2


def test_an_error_inside_leaves_the_weights_as_they_were() -> None:
    model = nn.Linear(2, 2)
    ema = Ema(model, 0.5)
    now = model.weight.detach().clone() + 1
    with torch.no_grad():
        model.weight.copy_(now)
    with pytest.raises(RuntimeError, match="inside"), ema.in_place():
        raise RuntimeError("inside")
    assert torch.equal(model.weight, now)


def test_what_does_not_fit_is_refused(tmp_path) -> None:
    Ema(nn.Linear(3, 2), 0.9).save(tmp_path / "ema.safetensors")
    with pytest.raises(ValueError, match="averages of other weights"):
        Ema(nn.Linear(3, 3), 0.9).load(tmp_path / "ema.safetensors")
    with pytest.raises(ValueError, match="decay = 1"):
        Ema(nn.Linear(3, 3), 1)


def test_averages_can_replace_the_weights_and_start_again() -> None:
    model = nn.Linear(1, 1)
    nn.init.zeros_(model.weight)
    ema = Ema(model, 0.75)
    nn.init.ones_(model.weight)
    ema.update()
    ema.apply()
    assert model.weight.item() == 0.25
    nn.init.ones_(model.weight)
    ema.restart()
    ema.apply()
    assert model.weight.item() == 1.0


def test_decay_zero_keeps_no_averages(tmp_path) -> None:
    model = nn.Linear(1, 1)
    now = model.weight.detach().clone()
    ema = Ema(model, 0.0)
    for change in (ema.update, ema.apply, ema.restart):
        change()
    with ema.in_place():
        assert torch.equal(model.weight, now)
    ema.save(tmp_path / "ema.safetensors")
    ema.load(tmp_path / "ema.safetensors")
    assert not list(tmp_path.iterdir())
