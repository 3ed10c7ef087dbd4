"""Checkpoints of a training run."""

from __future__ import annotations

import json
import shutil
import warnings
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from accelerate.utils import broadcast_object_list
from safetensors import SafetensorError

from tokgen.disk import disk_errors, flush
from tokgen.results import one_line
from tokgen.runs.folder import write_json

__all__ = ["FILES", "KEPT", "Checkpoints", "find_damage"]

KEPT = 2
FILES = "files.json"  # size and checksum of each file of a checkpoint
_BLOCK = 1 << 24  # bytes
_UNREADABLE = (OSError, RuntimeError, KeyError, EOFError, UnpicklingError, SafetensorError)


class Checkpoints:
    """Checkpoint folders `step-<n>` of a run.

    A checkpoint is written to a temporary folder, flushed to the disk and renamed, so a killed
    process or machine leaves the previous checkpoint intact. The newest `KEPT` checkpoints are
    kept, and a damaged one is noticed by its checksums.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._was_there = folder.is_dir()

    def steps(self) -> list[int]:
        """Return the steps that have a complete checkpoint, in ascending order."""
        found = self.folder.glob("step-*") if self.folder.is_dir() else []
        return sorted(int(p.name.removeprefix("step-")) for p in found if p.name[5:].isdigit())

    def path(self, step: int) -> Path:
        """The checkpoint folder of a step."""
        return self.folder / f"step-{step}"

    def save(self, accelerator: Any, step: int, extra: dict[str, Any], averages: Any) -> None:
        """Save the state of all objects that Accelerate prepared. Every process must call this.

        Args:
            accelerator: its `save_state` is used.
            step: number of the checkpoint. Checkpoints of later steps are deleted.
            extra: JSON-ready values to save with it.
            averages: `tokgen.nn.ema.Ema` to save with it, in one file per process.
        Raises:
            OSError: the disk is full, or the run's folder was deleted.
        """
        target = self.path(step)
        partial = self.folder / f"partial-{step}"
        if self._was_there and not self.folder.is_dir():
            raise FileNotFoundError(
                f"{self.folder} was deleted while it was in use: run the same command again to "
                "start over"
            )
        if accelerator.is_main_process:
            for old in self.folder.glob("partial-*"):
                shutil.rmtree(old)
        accelerator.wait_for_everyone()
        try:
            with disk_errors(target, "run the same command again to continue"):
                accelerator.save_state(str(partial))
                averages.save(partial / _averages_file(accelerator))
                accelerator.wait_for_everyone()
                if accelerator.is_main_process:
                    write_json(partial / "extra.json", extra)
                    write_json(partial / FILES, _flushed(partial))
                    flush(partial)
        except Exception:
            shutil.rmtree(partial, ignore_errors=True)
            raise
        if accelerator.is_main_process:
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
            flush(self.folder)
            steps = self.steps()
            kept = [known for known in steps if known <= step][-KEPT:]
            for other in set(steps) - set(kept):
                shutil.rmtree(self.path(other))
        self._was_there = True
        accelerator.wait_for_everyone()

    def resume(self, accelerator: Any, averages: Any) -> tuple[int, dict[str, Any]]:
        """Load the newest checkpoint that is not damaged. Every process must call this.

        Returns:
            its step and `extra`; (0, {}) if there is no checkpoint.
        Raises:
            ValueError: all checkpoints are damaged, or the newest is of another model.
        """
        chosen = [self._newest() if accelerator.is_main_process else 0]
        if accelerator.num_processes > 1:
            broadcast_object_list(chosen)
        step = chosen[0]
        if step is None:
            raise ValueError(
                f"{self.folder} has only damaged checkpoints: delete it to start over, or restore "
                "one from a backup"
            )
        if not step:
            return 0, {}
        folder = self.path(step)
        try:
            accelerator.load_state(str(folder))
            averages.load(folder / _averages_file(accelerator))
            return step, json.loads((folder / "extra.json").read_text())
        except _UNREADABLE as error:
            reason = f"{type(error).__name__}: {one_line(str(error))}"
            raise ValueError(
                f"{folder} cannot be loaded ({reason}): delete it to continue from the checkpoint "
                "before it"
            ) from error

    def _newest(self) -> int | None:
        """Return the newest step whose checkpoint is whole; 0 if there is none, None if all fail.

        Warns of damaged checkpoints.
        """
        steps = self.steps()
        for step in reversed(steps):
            damage = find_damage(self.path(step))
            if damage is None:
                return step
            warnings.warn(
                f"checkpoint {self.path(step)} is damaged ({damage}): it is not used",
                stacklevel=4,
            )
        return None if steps else 0


def find_damage(folder: Path) -> str | None:
    """Return what is wrong with the files of a checkpoint; None if nothing is."""
    try:
        expected = json.loads((folder / FILES).read_text())
    except FileNotFoundError:
        return None if (folder / "extra.json").is_file() else f"{FILES} is missing"
    except (OSError, ValueError):
        return f"{FILES} cannot be read"
    for name, (size, checksum) in expected.items():
        path = folder / name
        try:
            found = path.stat().st_size
            if found != size:
                return f"{name} has {found} bytes, not {size}"
            if _checksum(path) != checksum:
                return f"{name} has another content than when it was saved"
        except FileNotFoundError:
            return f"{name} is missing"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return None


def _flushed(folder: Path) -> dict[str, tuple[int, int]]:
    """Flush the files of a folder to the disk, and return the size and checksum of each."""
    found = {}
    for path in sorted(folder.rglob("*")):
        flush(path)
        if path.is_file():
            name = path.relative_to(folder).as_posix()
            found[name] = path.stat().st_size, _checksum(path)
    return found


def _checksum(path: Path) -> int:
    """CRC-32 of a file."""
    value = 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            value = zlib.crc32(block, value)
    return value


def _averages_file(accelerator: Any) -> str:
    return f"ema-{accelerator.process_index}.safetensors"
