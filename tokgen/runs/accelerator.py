"""Accelerate for a run: precision, seeds, trackers."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs


def step_seed(*parts: int) -> int:
    """One 64-bit seed from several integers (seed, step, process …)."""
    return int(np.random.SeedSequence(parts).generate_state(1, np.uint64)[0] >> 1)


def pick_precision(wanted: str) -> str:
    """ "auto" -> "bf16" where the hardware multiplies bfloat16, else "no"; others pass through."""
    if wanted != "auto":
        return wanted
    if torch.cuda.is_available():
        return "bf16" if torch.cuda.is_bf16_supported() else "no"
    return "bf16" if torch.cpu._is_avx512_bf16_supported() else "no"


LONGEST_HOURS = 24  # that processes wait for each other: the first one may tokenize a corpus


def make_accelerator(
    gradient_accumulation: int, folder: Path, mixed_precision: str, tracker: str
) -> Accelerator:
    """An Accelerator for a training.

    Args:
        gradient_accumulation: batches per optimiser step.
        folder: folder of the run; trackers write there.
        mixed_precision: "auto", "no", "bf16" or "fp16".
        tracker: "none", "tensorboard", "wandb" ...
    Raises:
        ValueError: unknown precision or tracker.
    """
    return Accelerator(
        mixed_precision=pick_precision(mixed_precision),
        gradient_accumulation_steps=gradient_accumulation,
        log_with=None if tracker == "none" else tracker,
        project_dir=folder,
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=timedelta(hours=LONGEST_HOURS))],
    )


def conditions_of(accelerator: Any) -> dict[str, Any]:
    """What shapes weights beside settings and data: for `claim_run` and `save_settings`."""
    return {"processes": accelerator.num_processes, "precision": accelerator.mixed_precision}
