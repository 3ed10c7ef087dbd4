"""Accelerate's setup for a run: precision, random seeds, trackers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

LONGEST_WAIT = timedelta(hours=24)  # between processes; the first one may tokenize a corpus


def make_accelerator(
    folder: Path,
    mixed_precision: str,
    tracker: str,
    gradient_accumulation: int = 1,
    *,
    find_unused_parameters: bool = False,
) -> Accelerator:
    """Create the Accelerator of a training run.

    Args:
        folder: folder of the run; trackers write there.
        mixed_precision: "auto", "no", "bf16" or "fp16".
        tracker: "none", "tensorboard", "wandb" ...
        gradient_accumulation: batches per optimiser step.
        find_unused_parameters: set it if some steps do not use all parameters.
    Raises:
        ValueError: unknown precision or tracker.
    """
    return Accelerator(
        mixed_precision=pick_precision(mixed_precision),
        gradient_accumulation_steps=gradient_accumulation,
        log_with=None if tracker == "none" else tracker,
        project_dir=folder,
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=LONGEST_WAIT),
            DistributedDataParallelKwargs(find_unused_parameters=find_unused_parameters),
        ],
    )


def pick_precision(wanted: str) -> str:
    """Resolve "auto" to "bf16" if the hardware multiplies bfloat16, else to "no"."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"


def conditions_of(accelerator: Any) -> dict[str, Any]:
    """The number of processes and the precision, for `claim_run` and `save_settings`.

    The trained weights depend on both, and neither is fixed by the settings.
    """
    return {"processes": accelerator.num_processes, "precision": accelerator.mixed_precision}


def step_seed(*parts: int) -> int:
    """Combine integers (seed, step, process ...) into one 63-bit seed."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)
