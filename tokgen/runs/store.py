"""Results of single clips on disk, so that a measurement can continue after a kill."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from torch import Tensor

from tokgen.disk import disk_errors
from tokgen.runs.folder import append_history, read_history, versions

__all__ = ["ClipStore", "RecordStore", "hash_audio", "plan_name", "slug"]


class ClipStore:
    """A folder with one safetensors file of arrays per clip.

    The folder's name contains a hash of the plan and of the library versions, so a store only
    holds results that are still valid.

    Args:
        out: parent folder of all stores.
        name: readable name of the measurement.
        plan: everything that the results depend on, JSON-ready.
    """

    def __init__(self, out: Path, name: str, plan: Any) -> None:
        self.folder = out / plan_name(name, plan)
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, index: int, arrays: dict[str, np.ndarray]) -> None:
        """Write the arrays of clip `index` atomically."""
        path = self._path(index)
        partial = path.with_suffix(".partial")
        with disk_errors(path):
            try:
                save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, str(partial))
                os.replace(partial, path)
            finally:
                partial.unlink(missing_ok=True)

    def read(self, index: int) -> dict[str, np.ndarray] | None:
        """Read the arrays of clip `index`. Returns None if the file is missing or damaged."""
        path = self._path(index)
        if not path.is_file():
            return None
        try:
            return load_file(str(path))
        except SafetensorError:
            return None

    def _path(self, index: int) -> Path:
        return self.folder / f"{index:06d}.safetensors"


class RecordStore:
    """A JSON Lines file with one record per clip. A line that a kill cut off is dropped.

    Args:
        out, name, plan: see `ClipStore`.
    Attributes:
        records: the records that an earlier process wrote, in order.
        append: writes one more record.
    """

    def __init__(self, out: Path, name: str, plan: Any) -> None:
        path = out / f"{plan_name(name, plan)}.jsonl"
        self.records: list[dict[str, Any]] = read_history(path)
        self.append = append_history(path, self.records)


def plan_name(name: str, plan: Any) -> str:
    """A file name with a hash of the plan and the library versions."""
    text = json.dumps([plan, versions()], sort_keys=True)
    return f"{slug(name)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def hash_audio(waveforms: Iterable[Tensor]) -> str:
    """SHA-256 (hex) of the shapes and values of waveforms or other tensors."""
    digest = hashlib.sha256()
    for waveform in waveforms:
        digest.update(f"{tuple(waveform.shape)}".encode())
        digest.update(waveform.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def slug(name: str) -> str:
    """Turn a name into a file name: all but letters, digits, dots and dashes become underscores."""
    safe = "".join(c if c.isalnum() or c in ".-" else "_" for c in name).strip(".")
    return safe[:80] or "_"
