"""What one training of a comparison gives: clips, token accuracy, speeds; found again on disk."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from tokgen.comparison.compare import accuracy_records
from tokgen.evaluation.accuracy import token_accuracy
from tokgen.generation.held_out import HeldOut
from tokgen.generation.prompts import TaskSettings
from tokgen.generation.sampling import SamplingSettings
from tokgen.modelling.masked import MaskedTransformer
from tokgen.nn.pretrained import hash_weights
from tokgen.runs.store import ClipStore


@dataclass(frozen=True)
class Cell:
    """A model's part of the table.

    Attributes:
        clips: generated waveforms [1, N], in the order of the held-out utterances.
        accuracy: token accuracy as fields of records (`accuracy_records`).
        steps_per_second: of its training.
        times_real_time: seconds of generated audio per second of sampling.
    """

    clips: list[Tensor]
    accuracy: list[dict[str, float]]
    steps_per_second: float
    times_real_time: float


def fill_cell(
    model: MaskedTransformer,
    held_out: HeldOut,
    folder: Path,
    accelerator: Any,
    *,
    task: TaskSettings,
    sampling: SamplingSettings,
    seed: int,
    batch_size: int = 16,
) -> Cell:
    """Generate the utterances and count guessed tokens; every process must call it.

    Args:
        model: trained, in eval mode.
        held_out: utterances.
        folder: of the training, with training.json; finished batches and counts are kept there.
        accelerator: whose processes share the utterances.
        task, sampling: what is generated and how.
        seed: of the noise and of the masks that count.
        batch_size: utterances at once.
    Returns:
        all of it on the main process, without `accuracy` on the others.
    """
    plan = [asdict(task), asdict(sampling), batch_size, accelerator.num_processes]
    about = [seed, held_out.fingerprint, hash_weights(model)]
    with accelerator.split_between_processes(list(range(len(held_out)))) as mine:
        made = held_out.part(mine).generate(
            model,
            task,
            sampling,
            seed=seed,
            batch_size=batch_size,
            store=ClipStore(folder / "generated", "clips", plan + about),
            progress=accelerator.is_main_process,
        )
    made = gather_object(made)
    accuracy = []
    if accelerator.is_main_process:
        store = ClipStore(folder / "accuracy", "tokens", about)
        counts = token_accuracy(model, held_out, seed=seed, store=store, progress=True)
        accuracy = accuracy_records(*counts)
    speed = json.loads((folder / "training.json").read_text())["steps_per_second"]
    return Cell(
        [clip.waveform for clip in made],
        accuracy,
        math.nan if speed is None else speed,
        held_out.generated_seconds(task, seed=seed) / sum(clip.seconds for clip in made),
    )
