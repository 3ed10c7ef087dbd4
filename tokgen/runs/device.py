"""Choose the device that networks run on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

__all__ = ["DeviceSettings", "check_device", "float64", "pick_device"]


@dataclass(frozen=True, kw_only=True)
class DeviceSettings:
    """Choose the device.

    Attributes:
        device: cpu, cuda, cuda:1 or mps; auto is the first of cuda, mps and cpu that this machine
            has.
    """

    device: str = "auto"


def check_device(name: str) -> None:
    """Raise ValueError if no device can have a name. It imports no torch."""
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or not (index or "0").isdecimal():
        raise ValueError(f"device {name!r}: give auto, cpu, cuda, cuda:<number> or mps")


def pick_device(name: str | torch.device = "auto") -> torch.device:
    """Return a device of this machine.

    Args:
        name: "auto" (the first of cuda, mps and cpu that is there), "cpu", "cuda", "cuda:1" or
            "mps".
    Raises:
        ValueError: no device has this name, or this machine lacks it.
    """
    import torch

    counts = {
        "cuda": torch.cuda.device_count(),
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if name == "auto":
        return torch.device(next(kind for kind, n in counts.items() if n))
    check_device(str(name))
    kind, _, index = str(name).partition(":")
    if int(index or 0) >= counts[kind]:
        has = ", ".join(f"{n} of {kind}" for kind, n in counts.items())
        raise ValueError(f"device {str(name)!r}: this machine has {has}")
    return torch.device(str(name))


def float64(values: Tensor) -> Tensor:
    """Return values in float64, on the CPU if their device is mps, which has no such type."""
    return (values.cpu() if values.device.type == "mps" else values).double()
