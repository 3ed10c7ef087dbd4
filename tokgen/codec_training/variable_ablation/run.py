"""An ablation of the variable bitrate: train a codec under several surrogates, and compare.

    table = run_variable_ablation(VariableAblationSettings())
    print(table)

Every condition trains with the same seeds, so crops and augmentation are the same step by step.
Each training is a folder in `cells/`, with its scores in `measured.json`. A killed run resumes. The
same command may run several times at once: each process takes cells that no other works on.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from tokgen.codec_training.architectures import make_trainable
from tokgen.codec_training.crops import open_crops, open_validation
from tokgen.codec_training.settings import CodecTrainingSettings
from tokgen.codec_training.train import train_codec
from tokgen.codec_training.variable_ablation.measure import Measured, check_bitrates, measure
from tokgen.codec_training.variable_ablation.settings import (
    Condition,
    VariableAblationSettings,
    cell_of,
    conditions_of,
)
from tokgen.codec_training.variable_ablation.table import variable_table
from tokgen.drift.clips import DriftClips
from tokgen.metrics.table_files import write_table
from tokgen.metrics.tables import Table
from tokgen.runs.cells import locked, share
from tokgen.runs.folder import write_json
from tokgen.runs.settings import claim_run, save_settings
from tokgen.runs.store import slug
from tokgen.zoo.lookup import load_codec

__all__ = ["MEASURED", "run_variable_ablation"]

MEASURED = "measured.json"  # scores of a cell that is done


def run_variable_ablation(s: VariableAblationSettings, *, command: str = "") -> Table | None:
    """Train and measure all cells, and write the results to runs/<name>.

    Writes table.json, .csv, .md and .tex.

    Args:
        command: the command that repeats this, for the cards of the codecs.
    Returns:
        the table; None if interrupted.
    Raises:
        ValueError, OSError: wrong settings or data, or the folder holds another run.
    """
    run, how = Path(s.runs) / s.name, s.training
    codec = make_trainable(how.architecture, how.model, how.variable)
    check_bitrates(s.bitrates, codec.as_codec().spec)
    if codec.n_channels > 1:
        raise ValueError(f"{codec.n_channels} channels: the ablation needs a codec of one channel")
    with locked(run / "plan"):
        claim_run(run, s)
        save_settings(run, s)
    clips = DriftClips(open_validation(how), seconds=None)
    with locked(run / "audio"):  # all cells share the training audio
        open_crops(how, codec.sample_rate, run / "audio")
    cells = {
        (condition, seed): _settings(s, run, condition, seed)
        for seed in range(s.seeds)
        for condition in conditions_of(s)
    }
    jobs = {
        cell.name: (Path(cell.runs) / cell.name, partial(_do, s, cell, clips, run, command))
        for cell in cells.values()
    }
    if not share("cells", jobs):
        return None
    found = {
        condition.label: [_read(cells[condition, seed]) for seed in range(s.seeds)]
        for condition in conditions_of(s)
    }
    table = variable_table(found, s)
    with locked(run / "plan"):
        write_table(table, run)
    return table


def _settings(
    s: VariableAblationSettings, run: Path, condition: Condition, seed: int
) -> CodecTrainingSettings:
    name = slug(f"{condition.label} seed {seed}")
    return replace(cell_of(s, condition, seed), name=name, runs=str(run / "cells"))


def _do(
    s: VariableAblationSettings,
    cell: CodecTrainingSettings,
    clips: DriftClips,
    run: Path,
    command: str,
) -> bool:
    """Train and measure a cell, unless it is done. Returns False if interrupted."""
    folder = Path(cell.runs) / cell.name
    if (folder / MEASURED).is_file():
        return True
    if train_codec(cell, command=command, audio=run / "audio") is None:
        return False
    codec = load_codec(folder / "codec")
    write_json(folder / MEASURED, asdict(measure(codec, clips, s.bitrates)))
    return True


def _read(cell: CodecTrainingSettings) -> Measured:
    """Read the scores of a cell; null is NaN."""
    saved = json.loads((Path(cell.runs) / cell.name / MEASURED).read_text())
    parts = {
        part: {k: [math.nan if x is None else x for x in v] for k, v in saved[part].items()}
        for part in ("importance", "variable", "constant")
    }
    return Measured(saved["ids"], **parts)
