"""Checkpoints of a training run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from tokgen.runs.folder import write_json

__all__ = ["KEPT", "Checkpoints"]

KEPT = 2


class Checkpoints:
    """Checkpoint folders `step-<n>` of a run.

    A checkpoint is written to a temporary folder and renamed when it is complete, so a killed
    process leaves the previous checkpoint intact.

    The newest `KEPT` checkpoints are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

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
            step: number of the checkpoint.
            extra: JSON-ready values to save with it.
            averages: `tokgen.nn.ema.Ema` to save with it, in one file per process.
        """
        target = self.path(step)
        partial = self.folder / f"partial-{step}"
        if accelerator.is_main_process and partial.exists():
            shutil.rmtree(partial)
        accelerator.wait_for_everyone()
        accelerator.save_state(str(partial))
        averages.save(partial / _averages_file(accelerator))
        accelerator.wait_for_everyone()
        if accelerator.is_main_process:
            write_json(partial / "extra.json", extra)
            if target.exists():
                shutil.rmtree(target)
            partial.rename(target)
            for old in self.steps()[:-KEPT]:
                shutil.rmtree(self.path(old))
        accelerator.wait_for_everyone()

    def resume(self, accelerator: Any, averages: Any) -> tuple[int, dict[str, Any]]:
        """Load the newest checkpoint.

        Returns:
            its step and `extra`; (0, {}) if there is no checkpoint.
        """
        steps = self.steps()
        if not steps:
            return 0, {}
        folder = self.path(steps[-1])
        accelerator.load_state(str(folder))
        averages.load(folder / _averages_file(accelerator))
        return steps[-1], json.loads((folder / "extra.json").read_text())


def _averages_file(accelerator: Any) -> str:
    return f"ema-{accelerator.process_index}.safetensors"
