"""Results of one training in a comparison, kept on disk so that a killed run resumes."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from accelerate.utils import gather_object
from torch import Tensor

from tokgen.comparison.compare import accuracy_records
from tokgen.evaluation.accuracy import token_accuracy
from tokgen.generation.clips import Generated
from tokgen.generation.held_out import HeldOut
from tokgen.generation.settings import SamplingSettings, TaskSettings
from tokgen.modelling.masked import MaskedTransformer
from tokgen.modelling.transformer import TokenTransformer
from tokgen.nn.hashes import hash_weights
from tokgen.runs.store import ClipStore

__all__ = ["TrainedCell", "fill_cell"]


@dataclass(frozen=True)
class TrainedCell:
    """Results of one training.

    Attributes:
        clips: generated waveforms [1, N], in the order of the held-out utterances.
        accuracy: token accuracy as record fields (`accuracy_records`).
        steps_per_second: speed of the training.
        times_real_time: seconds of generated audio per second of sampling.
        floor: waveforms generated without conditioning; empty if none were asked for.
        depths: levels of each frame [T] of the clips; None without a variable bitrate.
        floor_depths: the same for the waveforms of `floor`.
    """

    clips: list[Tensor]
    accuracy: list[dict[str, float]]
    steps_per_second: float
    times_real_time: float
    floor: list[Tensor] = field(default_factory=list)
    depths: list[Tensor] | None = None
    floor_depths: list[Tensor] | None = None


def fill_cell(
    model: TokenTransformer,
    held_out: HeldOut,
    folder: Path,
    accelerator: Any,
    *,
    task: TaskSettings,
    sampling: SamplingSettings,
    seed: int,
    batch_size: int = 16,
    floor: bool = False,
) -> TrainedCell:
    """Generate the held-out utterances and measure token accuracy. Every process must call it.

    Args:
        model: trained model, in eval mode.
        folder: folder of the training, with training.json. Finished batches and counts are kept
            there.
        accelerator: its processes share the utterances.
        task, sampling: what is generated, and how.
        seed: seed of sampling and of the masks for token accuracy.
        floor: generate the utterances without conditioning too.
    Returns:
        The results. `accuracy` is empty except on the main process, and for a model that is not
        masked: it hides no codes.
    """
    plan = [asdict(task), asdict(sampling), batch_size, accelerator.num_processes]
    about = [seed, held_out.fingerprint, hash_weights(model)]

    def generate(name: str, *, unconditional: bool) -> list[Generated]:
        with accelerator.split_between_processes(list(range(len(held_out)))) as mine:
            made = held_out.part(mine).generate(
                model,
                task,
                sampling,
                seed=seed,
                unconditional=unconditional,
                batch_size=batch_size,
                store=ClipStore(folder / name, "clips", plan + about),
                progress=accelerator.is_main_process,
            )
        return list(gather_object(made))

    made = generate("generated", unconditional=False)
    below = generate("unconditional", unconditional=True) if floor else []
    accuracy = []
    if accelerator.is_main_process and isinstance(model, MaskedTransformer):
        store = ClipStore(folder / "accuracy", "tokens", about)
        counts = token_accuracy(model, held_out, seed=seed, store=store, progress=True)
        accuracy = accuracy_records(*counts)
    speed = json.loads((folder / "training.json").read_text())["steps_per_second"]
    return TrainedCell(
        [clip.waveform for clip in made],
        accuracy,
        math.nan if speed is None else speed,
        held_out.generated_seconds(task, seed=seed) / sum(clip.seconds for clip in made),
        [clip.waveform for clip in below],
        _depths(made),
        _depths(below),
    )


def _depths(clips: list[Generated]) -> list[Tensor] | None:
    found = [clip.depth for clip in clips if clip.depth is not None]
    return found or None
