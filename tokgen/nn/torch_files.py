"""Open the checkpoints of other libraries, which `torch.save` wrote.

Such a file is a pickle inside a zip. torch opens it with `weights_only=True`, which builds tensors
and plain containers and runs no code. Before that, the zip is checked: nothing in it is compressed,
so what is read is never larger than the file.
"""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Collection
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor
from torch.serialization import get_unsafe_globals_in_checkpoint, safe_globals

from tokgen.nn.files import WeightsHeader, brief, shorten

__all__ = ["MAX_PICKLE_BYTES", "header_of", "open_checkpoint", "tensors_of"]

MAX_PICKLE_BYTES = 16 << 20  # of the pickle inside the zip, without the tensors
_MAX_ENTRIES = 100_000
_TYPES = {f"builtins.{name}" for name in ("bool", "dict", "float", "int", "list", "str", "tuple")}
_TYPES |= {"typing.Any", "typing.Union"}  # that ignored objects refer to
_DTYPES = {
    torch.float64: "F64",
    torch.float32: "F32",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int64: "I64",
    torch.int32: "I32",
    torch.int16: "I16",
    torch.int8: "I8",
    torch.uint8: "U8",
    torch.bool: "BOOL",
}  # as safetensors names them


class _Placeholder:
    """Stands for an object that was not loaded."""

    def __init__(self, *_: Any) -> None:
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def open_checkpoint(file: Path | IO[bytes], name: str = "", *, ignore: Collection[str] = ()) -> Any:
    """Return what a checkpoint holds, on the CPU.

    Args:
        file: path, or an open file that can seek.
        name: for errors; "" means the path.
        ignore: packages whose objects are not loaded. Empty objects take their place, so their
            code does not run, and they need not be installed.
    Raises:
        ValueError: not a zip of `torch.save`, damaged, compressed, or of objects other than tensors
            and plain containers.
    """
    name = name or str(file)
    try:
        _check_zip(file)
    except (OSError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{name} is not a checkpoint of torch 1.6 or later: {brief(error)}; download it again, "
            "or open and save it with a current torch"
        ) from error
    except ValueError as error:
        raise ValueError(f"{name} {error}") from error
    if not isinstance(file, Path):
        file.seek(0)
    try:
        mmap = isinstance(file, Path)  # so that tensors are read when they are used
        with safe_globals(_placeholders(file, ignore)):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{name} holds objects other than tensors, which can run code, so it is not opened: "
            "save its state dict alone, with torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # torch raises errors of many kinds for damaged files
        raise ValueError(f"{name} is damaged: {brief(error)}; download it again") from error


def _placeholders(file: Path | IO[bytes], ignore: Collection[str]) -> list[Any]:
    """Return what stands for the objects of some packages, and for the types that they use."""
    if not ignore:
        return []
    found = get_unsafe_globals_in_checkpoint(file)
    if not isinstance(file, Path):
        file.seek(0)
    out: list[Any] = []
    for name in found:
        if name == "collections.defaultdict":
            out.append((_plain_dict, name))
        elif name in _TYPES or name.split(".")[0] in ignore:
            out.append((_Placeholder, name))
    return out


def _plain_dict(*_: Any) -> dict[Any, Any]:
    return {}


def _check_zip(file: Path | IO[bytes]) -> None:
    """Raise ValueError if a zip is compressed or has too many or too large parts."""
    with zipfile.ZipFile(file) as archive:
        parts = archive.infolist()
    if len(parts) > _MAX_ENTRIES:
        raise ValueError(f"has {len(parts)} parts, over the limit of {_MAX_ENTRIES}")
    for part in parts:
        if part.compress_type != zipfile.ZIP_STORED or part.file_size > part.compress_size:
            raise ValueError(f"has the compressed part {shorten(part.filename)}; save it again")
        if part.filename.endswith(".pkl") and part.file_size > MAX_PICKLE_BYTES:
            raise ValueError(
                f"has a pickle of {part.file_size} bytes, over the limit of {MAX_PICKLE_BYTES}"
            )


def tensors_of(state: Any, name: str) -> dict[str, Tensor]:
    """Return a state dict, checked.

    Args:
        state: what `open_checkpoint` returned, or a part of it.
        name: of the file, for errors.
    Raises:
        ValueError: no dict of dense tensors by name, or a tensor that is larger than its storage.
    """
    if not isinstance(state, dict) or not state:
        raise ValueError(f"{name} holds a {type(state).__name__}, not a state dict of tensors")
    for key, value in state.items():
        if not isinstance(key, str) or not isinstance(value, Tensor):
            kind = type(value).__name__
            raise ValueError(f"{name}: {shorten(key)} is a {kind}, not a tensor: not a state dict")
        if value.layout != torch.strided or value.device.type != "cpu":
            raise ValueError(f"{name}: {shorten(key)} is not a dense tensor")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{name}: {shorten(key)} is larger than what the file holds of it")
        if value.dtype not in _DTYPES:
            raise ValueError(f"{name}: {shorten(key)} is of {value.dtype}, not of numbers")
    return {key: value.detach() for key, value in state.items()}


def header_of(state: dict[str, Tensor], path: Path, settings: str) -> WeightsHeader:
    """Return the header that a state dict would have as a safetensors file.

    Args:
        state: see above.
        path: file of the weights.
        settings: name of the file with the settings, for errors.
    """
    tensors = {k: (_DTYPES[v.dtype], tuple(v.shape)) for k, v in state.items()}
    return WeightsHeader(path, tensors, settings)
