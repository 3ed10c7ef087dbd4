"""Measure what the settings of sampling do to what a token model generates from MFCCs.

    python recipes/benchmarks/sampling_ablation.py --model speech-16k --corpus recipes/data/allison
    python recipes/benchmarks/sampling_ablation.py --model a=runs/a/model b=runs/b/model \
        --corpus en.parquet --vary none

The first setting of `--model` with the settings of `--base` is the reference. Each row changes one
of them: guidance, temperature of the mask, steps per level, or the model. Every row generates the
same test utterances with the same seeds of the noise. Intervals cover clips and seeds; differences
from the reference are paired over both. Results of each row and seed stay in `--out`, so the
same command continues after a kill.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tabulate import tabulate

from ceilings import machine
from tokgen.evaluation.metric import METRICS
from tokgen.evaluation.rows import score_audio
from tokgen.generation.generate import load_generator
from tokgen.generation.held_out import HeldOut
from tokgen.generation.settings import SamplingSettings, TaskSettings
from tokgen.generation.training_tokens import open_generator_data
from tokgen.metrics.statistics import (
    Estimate,
    bootstrap_crossed,
    format_estimate,
    paired_crossed,
)
from tokgen.modelling.transformer import TokenTransformer
from tokgen.nn.hashes import hash_weights
from tokgen.runs.folder import write_json
from tokgen.runs.interrupts import plain_errors
from tokgen.runs.progress import progress_bar

BASE = SamplingSettings(steps=(8, 4, 2, 1), guidance_scale=2.0)
STEPS = ((1,), (4, 2, 1), (16, 1), (16, 8, 4, 2, 1), (32, 16, 8, 4, 2, 1))
VARIED: dict[str, list[dict[str, Any]]] = {
    "guidance": [{"guidance_scale": scale} for scale in (1.0, 1.5, 3.0, 4.0)],
    "mask_temperature": [{"mask_temperature": scale} for scale in (0.0, 3.0, 30.0)],
    "steps": [{"steps": steps} for steps in STEPS],
    "none": [],
}
METRIC_NAMES = ("cer", "mos", "pesq")
DIGITS = {"cer": 3, "mos": 2, "pesq": 3}


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", nargs="+", default=["speech-16k"], metavar="[LABEL=]MODEL")
    parser.add_argument("--corpus", default="recipes/data/allison", help="test split of this")
    parser.add_argument("--vary", nargs="+", default=["guidance", "mask_temperature", "steps"],
                        choices=list(VARIED))  # fmt: skip
    parser.add_argument("--n_test", type=int, default=1000, help="utterances at most")
    parser.add_argument("--min_seconds", type=float, default=0.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--asr", default="moonshine")
    parser.add_argument("--mos", default="distillmos")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path("runs/sampling_ablation"))
    a = parser.parse_args(argv)
    torch.set_num_threads(a.threads)
    with plain_errors():
        print(run(a))
    return 0


def run(a: argparse.Namespace) -> str:
    """Measure all rows, write results.json, and return the table."""
    names = dict(label.split("=", 1) if "=" in label else (label, label) for label in a.model)
    models = {label: load_generator(name, device="cpu") for label, name in names.items()}
    first = next(iter(models.values()))
    features = first.model.config["conditioning"]
    data = open_generator_data(
        None, a.corpus, first.codec, a.out / "tokens", features and features["kind"],
        n_test=a.n_test, min_seconds=a.min_seconds, device="cpu",
    )  # fmt: skip
    rows = plan(list(models), a.vary)
    cells: dict[str, list[dict[str, Any]]] = {row: [] for row in rows}
    with progress_bar("sampling", total=len(rows) * a.seeds, unit="cell") as bar:
        for row, (label, settings) in rows.items():
            for seed in range(a.seeds):
                cells[row].append(cell(models[label].model, data.held_out, settings, seed, a))
                bar.update()
    estimates = {row: estimate(found) for row, found in cells.items()}
    reference = next(iter(rows))
    differences = {
        row: compare(cells[reference], found) for row, found in cells.items() if row != reference
    }
    content = {
        "machine": machine(),
        "settings": vars(a) | {"out": str(a.out)},
        "base": asdict(BASE),
        "n": len(data.held_out),
        "seconds": data.held_out.seconds,
        "rows": as_dicts(estimates),
        "minus the first": as_dicts(differences),
        "cpu_seconds": {row: [c["cpu_seconds"] for c in found] for row, found in cells.items()},
    }
    write_json(a.out / "results.json", content)
    return table(estimates, differences, cells, data.held_out.seconds)


def as_dicts(found: Mapping[str, Mapping[str, Estimate]]) -> dict[str, Any]:
    return {row: {m: e.as_dict() for m, e in values.items()} for row, values in found.items()}


def plan(labels: Sequence[str], vary: Sequence[str]) -> dict[str, tuple[str, SamplingSettings]]:
    """Return the model's label and the settings of each row, the reference first."""
    rows = {labels[0] if len(labels) > 1 else "base": (labels[0], BASE)}
    rows |= {label: (label, BASE) for label in labels[1:]}
    for name in vary:
        for changed in VARIED[name]:
            [(setting, value)] = changed.items()
            shown = " ".join(map(str, value)) if isinstance(value, tuple) else f"{value:g}"
            rows[f"{setting} {shown}"] = (labels[0], replace(BASE, **changed))
    return rows


def cell(
    model: TokenTransformer,
    held_out: HeldOut,
    settings: SamplingSettings,
    seed: int,
    a: argparse.Namespace,
) -> dict[str, Any]:
    """Generate and score the utterances with one seed, or read what was kept of that."""
    key = [hash_weights(model), held_out.fingerprint, asdict(settings), seed, a.asr, a.mos]
    path = a.out / "cells" / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"
    if path.is_file():
        return dict(json.loads(path.read_text()))
    started = time.process_time()
    made = held_out.generate(model, TaskSettings(), settings, seed=seed)
    took = time.process_time() - started
    scores = score_audio(
        {"original": held_out.originals, "generated": [g.waveform for g in made]},
        texts=held_out.texts, ids=held_out.ids, sample_rate=held_out.codec.spec.sample_rate,
        metrics=METRIC_NAMES, asr=a.asr, mos=a.mos, workers=0, progress=False,
    )  # fmt: skip
    records = [record for record in scores.per_clip if record["row"] == "generated"]
    columns = {name: METRICS[name].columns(records) for name in METRIC_NAMES}
    found = {
        "cpu_seconds": took,
        "columns": {n: [list(map(float, side)) for side in sides] for n, sides in columns.items()},
    }
    write_json(path, found)
    return found


def tables(cells: Sequence[Mapping[str, Any]], metric: str) -> list[np.ndarray]:
    """Return numerators and denominators of a metric, [seeds, clips] each."""
    return [np.array([c["columns"][metric][side] for c in cells], dtype=float) for side in (0, 1)]


def estimate(cells: Sequence[Mapping[str, Any]]) -> dict[str, Estimate]:
    return {metric: bootstrap_crossed(*tables(cells, metric)) for metric in METRIC_NAMES}


def compare(
    reference: Sequence[Mapping[str, Any]], cells: Sequence[Mapping[str, Any]]
) -> dict[str, Estimate]:
    """Return the mean of each metric minus that of the reference, paired."""
    found = {}
    for metric in METRIC_NAMES:
        (a, below_a), (b, below_b) = tables(reference, metric), tables(cells, metric)
        found[metric] = paired_crossed(a, b, below_a, below_b)
    return found


def table(
    estimates: Mapping[str, Mapping[str, Estimate]],
    differences: Mapping[str, Mapping[str, Estimate]],
    cells: Mapping[str, Sequence[Mapping[str, Any]]],
    seconds: float,
) -> str:
    lines = []
    for row, found in estimates.items():
        line = [row]
        for metric in METRIC_NAMES:
            line.append(format_estimate(found[metric], DIGITS[metric]))
            other = differences.get(row, {}).get(metric)
            line.append("" if other is None else format_estimate(other, DIGITS[metric], sign=True))
        took = sum(c["cpu_seconds"] for c in cells[row]) / len(cells[row])
        lines.append([*line, f"{seconds / took:.1f}"])
    names = [head for metric in METRIC_NAMES for head in (metric.upper(), "minus base")]
    return tabulate(lines, ["row", *names, "x real time"], tablefmt="github", disable_numparse=True)


if __name__ == "__main__":
    raise SystemExit(main())
