"""Results of single clips on disk, so that a long measurement goes on after a kill."""

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

from tokgen.runs.folder import append_history, read_history, versions


class ClipStore:
    """Arrays of clips, found again under the same plan and the same library versions.

    Args:
        out: folder of all stores.
        name: of what is measured, for people.
        plan: all that the results depend on, JSON-ready.
    """

    def __init__(self, out: Path, name: str, plan: Any) -> None:
        self.folder = out / plan_name(name, plan)
        self.folder.mkdir(parents=True, exist_ok=True)

    def write(self, index: int, arrays: dict[str, np.ndarray]) -> None:
        """Whole or not at all."""
        path = self._path(index)
        partial = path.with_suffix(".partial")
        save_file({k: np.asarray(v, order="C") for k, v in arrays.items()}, str(partial))
        os.replace(partial, path)

    def read(self, index: int) -> dict[str, np.ndarray] | None:
        """What `write` wrote; None where there is nothing, or nothing readable."""
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
    """Records of clips in one file, a JSON line each; a line that a kill cut off is dropped.

    Args:
        out: folder of all stores.
        name, plan: as for `ClipStore`.
    Attributes:
        records: those written before, in order.
    """

    def __init__(self, out: Path, name: str, plan: Any) -> None:
        path = out / f"{plan_name(name, plan)}.jsonl"
        self.records: list[dict[str, Any]] = read_history(path)
        self.append = append_history(path, self.records)


def plan_name(name: str, plan: Any) -> str:
    """A file name that differs where the plan or the library versions do."""
    text = json.dumps([plan, versions()], sort_keys=True)
    return f"{slug(name)}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def hash_audio(waveforms: Iterable[Tensor]) -> str:
    """SHA-256 (hex) over shapes and samples, or over any other float tensors."""
    digest = hashlib.sha256()
    for waveform in waveforms:
        digest.update(f"{tuple(waveform.shape)}".encode())
        digest.update(waveform.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def slug(name: str) -> str:
    """A name as a file name: letters, digits, dot, dash; the rest becomes an underscore."""
    safe = "".join(c if c.isalnum() or c in ".-" else "_" for c in name).strip(".")
    return safe[:80] or "_"
