"""Compare the settings of a model with its weights before its network is built.

The sizes in config.json are compared with the headers of the weights, so that no setting can make
the network larger than its weights. What does not fit ends in one `ValueError` that names the file,
the value and the limit.
"""

from __future__ import annotations

import math
import threading
import types
import typing
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from tokgen.nn.files import WeightsHeader, brief, shorten, walk

__all__ = [
    "building",
    "check_common",
    "check_count",
    "check_finite",
    "check_fit",
    "check_settings",
    "check_size",
]

_SPARE_VALUES = 1 << 22  # of buffers that are not saved
_LAYERS = 6  # modules and parameters per tensor in the weights; networks in use have up to 3
_SMALL = 1 << 20  # settings up to this may exceed the number of weights


def check_settings(
    config: Mapping[str, Any], kinds: Mapping[str, Any], header: WeightsHeader
) -> None:
    """Check the types of settings, and that no size exceeds the number of weights by far.

    Args:
        config: settings.
        kinds: type by name, such as the annotations of a constructor.
        header: of the weights.
    Raises:
        ValueError: wrong type, or a negative or too large integer.
    """
    path = header.path.with_name(header.settings)
    most = max(_SMALL, 4 * header.n_values)
    for name, value in config.items():
        wanted = kinds.get(name, Any)
        if not _fits(value, wanted):
            raise ValueError(f"{path}: {name} = {shorten(value)} is not of type {_name(wanted)}")
        for number in value if isinstance(value, list) else [value]:
            whole = isinstance(number, int) and not isinstance(number, bool)
            if whole and name != "sample_rate" and not 0 <= number <= most:
                raise ValueError(
                    f"{path}: {name} = {number}, but must be 0..{most}, for {header.path.name} "
                    f"holds {header.n_values} weights"
                )


def _fits(value: Any, wanted: Any) -> bool:
    """Return whether a JSON value fits an annotation."""
    origin, arguments = typing.get_origin(wanted), typing.get_args(wanted)
    if wanted is Any:
        return True
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, option) for option in arguments)
    if wanted in (None, type(None)):
        return value is None
    if origin in (list, tuple, Sequence):
        return isinstance(value, list) and all(_fits(v, arguments[0]) for v in value)
    if origin is dict or wanted is dict:
        return isinstance(value, dict)
    if wanted is bool or isinstance(value, bool):
        return wanted is bool and isinstance(value, bool)
    return isinstance(value, (int, float) if wanted is float else wanted)


def _name(wanted: Any) -> str:
    return wanted.__name__ if isinstance(wanted, type) else str(wanted).replace("typing.", "")


def check_count(name: str, count: int, header: WeightsHeader) -> None:
    """Raise ValueError if a number of layers exceeds the number of tensors in the weights."""
    if count > len(header.tensors):
        raise ValueError(
            f"{header.path.with_name(header.settings)}: {name} = {count}, but {header.path.name} "
            f"holds only {len(header.tensors)} tensors"
        )


@contextmanager
def building(header: WeightsHeader, config: Mapping[str, Any], *, meta: bool) -> Iterator[None]:
    """Build a network inside the `with` block, with at most as many layers as its weights need.

    Args:
        header: of the weights.
        config: settings, for the error.
        meta: build on torch's meta device, without memory for the weights.
    Raises:
        ValueError: too many layers, or the constructor fails.
    """
    path, most = header.path.with_name(header.settings), 200 + _LAYERS * len(header.tensors)
    thread, count = threading.get_ident(), 0

    def check(parent: nn.Module, name: str, child: object) -> None:
        nonlocal count
        count += threading.get_ident() == thread
        if count > most:
            raise ValueError(
                f"a network of more than {most} layers, but {header.path.name} holds only "
                f"{len(header.tensors)} tensors{_largest(config)}"
            )

    with ExitStack() as stack:
        for register in (
            hooks.register_module_module_registration_hook,
            hooks.register_module_parameter_registration_hook,
        ):
            stack.callback(register(check).remove)
        if meta:
            stack.enter_context(torch.device("meta"))
            stack.enter_context(warnings.catch_warnings(action="ignore"))
        try:
            yield
        except (ImportError, OSError):
            raise
        except Exception as error:  # libraries raise errors of any kind for wrong settings
            raise ValueError(f"{path}: a setting is wrong: {brief(error)}") from error


def _largest(config: Mapping[str, Any]) -> str:
    """Name the largest integer of settings."""
    found = [(v, name) for name, v, _ in walk(dict(config)) if type(v) is int]
    if not found:
        return ""
    value, name = max(found)
    return f" (the largest setting is {name} = {value})"


def check_size(model: nn.Module, header: WeightsHeader) -> None:
    """Raise ValueError if a network has many more values than its weights."""
    named = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    n_values, most = sum(t.numel() for t in named.values()), 4 * header.n_values + _SPARE_VALUES
    if n_values > most:
        name = max(named, key=lambda key: named[key].numel())
        raise ValueError(
            f"{header.path.parent}: weights do not fit {header.settings}, which makes a network of "
            f"{n_values} values ({name} has shape {tuple(named[name].shape)}), but "
            f"{header.path.name} holds {header.n_values}"
        )


def check_fit(state: Mapping[str, Tensor], header: WeightsHeader) -> None:
    """Raise ValueError unless the header names exactly the tensors of a state dict."""
    for kind, names in (
        ("lacks", set(state) - set(header.tensors)),
        ("has the unknown tensors", set(header.tensors) - set(state)),
    ):
        if names:
            raise ValueError(
                f"{header.path.parent}: weights do not fit {header.settings}: {header.path.name} "
                f"{kind} {_some(names)}"
            )
    check_common(state, header)


def check_common(state: Mapping[str, Tensor], header: WeightsHeader) -> None:
    """Raise ValueError if a tensor has another shape than in the header, or integers for floats."""
    for name, tensor in state.items():
        if name not in header.tensors:
            continue
        dtype, shape = header.tensors[name]
        if shape != tuple(tensor.shape):
            raise ValueError(
                f"{header.path.parent}: weights do not fit {header.settings}: {name} has shape "
                f"{shape} in {header.path.name}, but {header.settings} makes it "
                f"{tuple(tensor.shape)}"
            )
        if dtype.lstrip("B").startswith("F") != tensor.is_floating_point():
            raise ValueError(
                f"{header.path}: {name} is of {dtype}, but the network needs {tensor.dtype}"
            )


def _some(names: Collection[str], n: int = 3) -> str:
    shown = ", ".join(sorted(names)[:n])
    return shown if len(names) <= n else f"{shown} and {len(names) - n} more"


def check_finite(state: Mapping[str, Tensor], path: Path) -> None:
    """Raise ValueError if a weight is NaN or infinite; names the tensor and the file."""
    for name, tensor in state.items():
        if not tensor.is_floating_point() or not tensor.numel():
            continue
        low, high = (float(x) for x in tensor.detach().aminmax())
        if not (math.isfinite(low) and math.isfinite(high)):
            raise ValueError(
                f"{path}: {name} holds NaN or infinity; train or download the weights again"
            )
