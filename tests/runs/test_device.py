"""The device that networks run on."""

from __future__ import annotations

import pytest
import torch

from tokgen.runs.device import DeviceSettings, float64, pick_device


@pytest.fixture
def machine(monkeypatch):
    def has(cuda: int, mps: bool) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: cuda)
        monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)

    return has


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"),
    [(2, True, "cuda"), (1, False, "cuda"), (0, True, "mps"), (0, False, "cpu")],
)
def test_auto_is_the_first_device_that_is_there(machine, cuda, mps, expected):
    machine(cuda, mps)
    assert pick_device(DeviceSettings().device) == torch.device(expected)


def test_a_named_device_is_taken(machine):
    machine(2, False)
    for name in ("cpu", "cuda", "cuda:1"):
        assert pick_device(name) == torch.device(name)
    assert pick_device(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cuda:2", "this machine has 2 of cuda, 0 of mps, 1 of cpu"),
        ("mps", "device 'mps': this machine has 2 of cuda"),
        ("tpu", "device 'tpu': give auto, cpu, cuda, cuda:<number> or mps"),
        ("cuda:x", "give auto, cpu"),
        ("", "give auto, cpu"),
    ],
)
def test_the_error_says_what_the_machine_has(machine, name, message):
    machine(2, False)
    with pytest.raises(ValueError, match=message):
        pick_device(name)


def test_float64_leaves_mps_which_lacks_it():
    class OnMps:
        device = torch.device("mps")

        def cpu(self) -> torch.Tensor:
            return torch.ones(2)

        def double(self) -> torch.Tensor:
            raise TypeError("MPS has no float64")

    assert float64(OnMps()).dtype == torch.float64  # type: ignore[arg-type]
    assert float64(torch.arange(3)).tolist() == [0, 1, 2]
