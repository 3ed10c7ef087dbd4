"""Check the folder of a model before its network is built.

A damaged folder ends in one `ValueError` that names the file, the value and the limit. The sizes in
config.json are compared with the headers of the weights first, so that no setting can make the
network larger than its weights.
"""

from __future__ import annotations

import json
import math
import struct
import threading
import types
import typing
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules import module as hooks

from tokgen.nn.hub import CONFIG

__all__ = [
    "INDEX",
    "MAX_DEPTH",
    "MAX_HEADER_BYTES",
    "MAX_JSON_BYTES",
    "MAX_NUMBER",
    "WEIGHTS",
    "Tensors",
    "WeightsHeader",
    "brief",
    "building",
    "check_common",
    "check_count",
    "check_finite",
    "check_fit",
    "check_settings",
    "check_size",
    "read_header",
    "read_json",
    "read_tensors",
]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MAX_JSON_BYTES = 16 << 20
MAX_DEPTH = 64  # nesting of JSON
MAX_NUMBER = 2.0**53  # in JSON
MAX_HEADER_BYTES = 16 << 20  # of a safetensors file
_SPARE_VALUES = 1 << 22  # of buffers that are not saved
_SMALL = 1 << 20  # settings up to this may exceed the number of weights
_PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

Tensors = dict[str, tuple[str, tuple[int, ...]]]  # dtype ("F32" ...) and shape by name


def brief(error: Exception) -> str:
    """Return the message of an error in one line of at most 300 characters."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file of settings.

    Raises:
        ValueError: the file is no JSON object, is too large or nested too deeply, or holds a number
            that is not finite or above `MAX_NUMBER`.
    """
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise ValueError(f"{size} bytes, over the limit of {MAX_JSON_BYTES}")
        settings = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError as error:
        raise ValueError(f"{path} cannot be read: nested over {MAX_DEPTH} levels deep") from error
    except (OSError, ValueError) as error:
        raise ValueError(f"{path} cannot be read: {brief(error)}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{path} holds a {type(settings).__name__}, not settings")
    for name, value, depth in _walk(settings):
        if depth > MAX_DEPTH:
            raise ValueError(f"{path}: {name[:40]}… is nested over {MAX_DEPTH} levels deep")
        if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
            raise ValueError(
                f"{path}: {name} = {_short(value)} is not finite or above the limit of "
                f"{MAX_NUMBER:g}"
            )
    return settings


def _walk(settings: Any) -> Iterator[tuple[str, Any, int]]:
    """Yield name, value and depth of everything inside settings."""
    stack: list[tuple[str, Any, int]] = [("", settings, 0)]
    while stack:
        name, value, depth = stack.pop()
        if depth:
            yield name, value, depth
        inside: Iterable[tuple[object, Any]] = ()
        if depth > MAX_DEPTH:
            continue
        if isinstance(value, dict):
            inside = value.items()
        elif isinstance(value, list):
            inside = enumerate(value)
        stack += [(f"{name}.{key}" if name else str(key), v, depth + 1) for key, v in inside]


def _short(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # an int of thousands of digits
        text = "an integer of thousands of digits"
    return text if len(text) <= 60 else text[:59] + "…"


@dataclass(frozen=True)
class WeightsHeader:
    """What the headers of weights files say.

    Attributes:
        path: model.safetensors, or the index of several files.
        tensors: dtype ("F32" ...) and shape by name.
    """

    path: Path
    tensors: Tensors

    @property
    def n_values(self) -> int:
        return sum(math.prod(shape) for _, shape in self.tensors.values())


def read_header(folder: Path, *, sharded: bool = False) -> WeightsHeader:
    """Read the headers of a folder's weights, without the weights.

    Args:
        folder: folder with model.safetensors.
        sharded: allow an index of several files in its place.
    Raises:
        FileNotFoundError: no weights in safetensors.
        ValueError: a file is damaged, is no safetensors file, or lies outside the folder.
    """
    path = folder / WEIGHTS
    if not path.exists() and sharded and (folder / INDEX).is_file():
        return _read_shards(folder)
    return WeightsHeader(path, _read_file(path))


def _read_shards(folder: Path) -> WeightsHeader:
    path = folder / INDEX
    index = read_json(path)
    names = index.get("weight_map")
    if not isinstance(names, dict) or not isinstance(index.get("metadata", {}), dict):
        raise ValueError(f"{path} has no weight_map of tensor names to files")
    for name in names.values():
        inside = isinstance(name, str) and bool(name) and "\0" not in name and "\\" not in name
        if not inside or PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts:
            raise ValueError(
                f"{path} names the file {_short(name)}, which is not inside the folder: "
                "copy the weights into the folder"
            )
    tensors: Tensors = {}
    for name in sorted(set(names.values())):
        if not name.endswith(".safetensors"):
            raise ValueError(f"{path} names the file {_short(name)}, which is not .safetensors")
        tensors |= _read_file(folder / name)
    return WeightsHeader(path, tensors)


def _read_file(path: Path) -> Tensors:
    if not path.exists():
        raise FileNotFoundError(
            f"{path.parent} has no {path.name}; tokgen opens no pickles (.bin, .pt, .ckpt): "
            "convert them with safetensors.torch.save_file"
        )
    try:
        return read_tensors(path)
    except ValueError as error:
        raise ValueError(f"{path} {error}") from error


def read_tensors(path: Path) -> Tensors:
    """Return dtype and shape by name from the header of a safetensors file.

    Raises:
        ValueError: the file is damaged; the message is a verb phrase, for the file's name.
    """
    if not path.is_file():
        raise ValueError("is not a regular file")
    size = path.stat().st_size
    with path.open("rb") as file:
        start = file.read(8)
    header = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
    fits = 0 < header <= size - 8
    if not fits and start.startswith(_PICKLES):
        raise ValueError(
            "is a pickle, not a safetensors file; tokgen opens no pickles: convert it with "
            "safetensors.torch.save_file"
        )
    if not fits:
        raise ValueError(
            f"is damaged: a header of {header} bytes does not fit into {size} bytes; download or "
            "save it again"
        )
    if header > MAX_HEADER_BYTES:
        raise ValueError(f"has a header of {header} bytes, over the limit of {MAX_HEADER_BYTES}")
    try:
        with safe_open(str(path), framework="pt") as file:
            slices = {key: file.get_slice(key) for key in file.keys()}  # noqa: SIM118
            return {key: (s.get_dtype(), tuple(s.get_shape())) for key, s in slices.items()}
    except (SafetensorError, RuntimeError) as error:
        raise ValueError(f"is damaged: {brief(error)}") from error


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
    path = header.path.with_name(CONFIG)
    most = max(_SMALL, 4 * header.n_values)
    for name, value in config.items():
        wanted = kinds.get(name, Any)
        if not _fits(value, wanted):
            raise ValueError(f"{path}: {name} = {_short(value)} is not of type {_name(wanted)}")
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
            f"{header.path.with_name(CONFIG)}: {name} = {count}, but {header.path.name} holds only "
            f"{len(header.tensors)} tensors"
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
    path, most = header.path.with_name(CONFIG), 200 + 20 * len(header.tensors)
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
        try:
            yield
        except (ImportError, OSError):
            raise
        except Exception as error:  # libraries raise errors of any kind for wrong settings
            raise ValueError(f"{path}: a setting is wrong: {brief(error)}") from error


def _largest(config: Mapping[str, Any]) -> str:
    """Name the largest integer of settings."""
    found = [(v, name) for name, v, _ in _walk(dict(config)) if type(v) is int]
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
            f"{header.path.parent}: weights do not fit config.json, which makes a network of "
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
                f"{header.path.parent}: weights do not fit config.json: {header.path.name} {kind} "
                f"{_some(names)}"
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
                f"{header.path.parent}: weights do not fit config.json: {name} has shape {shape} "
                f"in {header.path.name}, but config.json makes it {tuple(tensor.shape)}"
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
