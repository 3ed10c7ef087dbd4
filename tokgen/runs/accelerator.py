"""Accelerate's setup for a run: precision, random seeds, trackers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from datetime import timedelta
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.tracking import get_available_trackers
from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs, LoggerType
from torch import Tensor

from tokgen.runs.interrupts import end_with_launcher

__all__ = [
    "LONGEST_WAIT",
    "conditions_of",
    "log_audio",
    "make_accelerator",
    "pick_precision",
    "start_trackers",
    "step_seed",
]

LONGEST_WAIT = timedelta(hours=24)  # between processes; the first one may tokenize a corpus


def make_accelerator(
    folder: Path,
    mixed_precision: str,
    tracker: str,
    gradient_accumulation: int = 1,
    *,
    find_unused_parameters: bool = False,
) -> Accelerator:
    """Create the Accelerator of a training run. The process then ends with its launcher.

    Args:
        folder: folder of the run; trackers write there.
        mixed_precision: "auto", "no", "bf16" or "fp16".
        tracker: "none", "tensorboard", "wandb" ...
        gradient_accumulation: batches per optimiser step.
        find_unused_parameters: set it if some steps do not use all parameters.
    Raises:
        ModuleNotFoundError: the tracker's package is missing; the error names the fix.
        ValueError: unknown precision or tracker.
    """
    end_with_launcher()
    available = [*map(str, get_available_trackers()), "all"]
    if tracker in LoggerType.list() and tracker not in available:
        wanted = "'tokgen[train]'" if tracker == "tensorboard" else tracker
        raise ModuleNotFoundError(
            f"tracker {tracker} is not installed: pip install {wanted}, or choose tracker none",
            name=tracker,
        )
    precision = pick_precision(mixed_precision)
    if AcceleratorState._shared_state and AcceleratorState().mixed_precision != precision:
        AcceleratorState._reset_state()  # it refuses another precision in the same process
    return Accelerator(
        mixed_precision=precision,
        gradient_accumulation_steps=gradient_accumulation,
        log_with=None if tracker == "none" else tracker,
        project_dir=folder,
        step_scheduler_with_optimizer=False,
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=LONGEST_WAIT),
            DistributedDataParallelKwargs(find_unused_parameters=find_unused_parameters),
        ],
    )


def start_trackers(accelerator: Accelerator, settings: Any, name: str = "logs") -> None:
    """Start the trackers and give them the settings of the run, a dataclass.

    Names are joined by dots ("model.depth"). Values that are not numbers, strings or booleans are
    given as text.
    """
    accelerator.init_trackers(name, config=_flatten(asdict(settings)))


def _flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, int | float | str | bool]:
    flat: dict[str, int | float | str | bool] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flatten(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value if isinstance(value, int | float | str) else str(value)
    return flat


def log_audio(
    accelerator: Accelerator, name: str, waveform: Tensor, sample_rate: int, step: int
) -> None:
    """Send a clip to the trackers: TensorBoard, W&B, and those with a method `log_audio`.

    `log_audio` of a tracker gets the same four values. Other trackers get nothing.

    Args:
        accelerator: its trackers are running.
        name: of the clip.
        waveform: [N] or [1, N] in [-1, 1].
        sample_rate: Hz.
        step: of the training.
    """
    if not accelerator.is_main_process:
        return
    audio = waveform.detach().flatten().float().cpu()
    for tracker in accelerator.trackers:
        if hasattr(tracker, "log_audio"):
            tracker.log_audio(name, audio, sample_rate, step)
        elif tracker.name == "tensorboard":
            tracker.tracker.add_audio(name, audio[None], step, sample_rate)
            tracker.tracker.flush()
        elif tracker.name == "wandb":
            clip = import_module("wandb").Audio(audio.numpy(), sample_rate=sample_rate)
            tracker.log({name: clip}, step=step)


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
