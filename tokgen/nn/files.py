"""Read config.json and the headers of the weights of a model's folder.

A damaged file ends in one `ValueError` that names the file, the value and the limit.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from safetensors import SafetensorError, safe_open

__all__ = [
    "INDEX",
    "MAX_DEPTH",
    "MAX_HEADER_BYTES",
    "MAX_JSON_BYTES",
    "MAX_NUMBER",
    "SCALE",
    "WEIGHTS",
    "Tensors",
    "WeightsHeader",
    "brief",
    "read_header",
    "read_json",
    "read_tensors",
    "shorten",
    "walk",
]

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SCALE = ".scale8"  # after the name of a weight in 8 bits: its scales, see `tokgen.nn.eight_bits`
MAX_JSON_BYTES = 16 << 20
MAX_DEPTH = 64  # nesting of JSON
MAX_NUMBER = 2.0**53  # in JSON
MAX_HEADER_BYTES = 16 << 20  # of a safetensors file
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
    for name, value, depth in walk(settings):
        if depth > MAX_DEPTH:
            raise ValueError(f"{path}: {name[:40]}… is nested over {MAX_DEPTH} levels deep")
        if isinstance(value, int | float) and not abs(value) <= MAX_NUMBER:
            raise ValueError(
                f"{path}: {name} = {shorten(value)} is not finite or above the limit of "
                f"{MAX_NUMBER:g}"
            )
    return settings


def walk(settings: Any) -> Iterator[tuple[str, Any, int]]:
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


def shorten(value: object) -> str:
    """Return a value as text of at most 60 characters."""
    try:
        text = repr(value)
    except ValueError:  # an int of thousands of digits
        text = "an integer of thousands of digits"
    return text if len(text) <= 60 else text[:59] + "…"


@dataclass(frozen=True)
class WeightsHeader:
    """Names, types and shapes of the tensors in weights files, read from their headers.

    Attributes:
        path: model.safetensors, or the index of several files.
        tensors: dtype ("F32" ...) and shape by name.
        settings: name of the file beside it with the settings, for errors.
    """

    path: Path
    tensors: Tensors
    settings: str = "config.json"

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
                f"{path} names the file {shorten(name)}, which is not inside the folder: "
                "copy the weights into the folder"
            )
    tensors: Tensors = {}
    for name in sorted(set(names.values())):
        if not name.endswith(".safetensors"):
            raise ValueError(f"{path} names the file {shorten(name)}, which is not .safetensors")
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
