"""An ablation of drift: tune a codec under several conditions, and compare what drifts.

    table = run_ablation(AblationSettings(codec="speech-16k", tuning=TuningSettings(steps=600)))
    print(table)

Every condition trains with the same seeds, so crops and augmentation are the same step by step. A
loss without a given weight is first tuned under seed 0 with the weights of the sweep, from the
largest down to the first whose validation loss holds. These trainings are as long as the others and
count as them. The loss has this weight in all its conditions; if no weight holds, it has the
smallest, and the table says so. Then every tuned codec goes through the drift protocol on the same
test clips, with and without shifts between passes. Differences are paired over clips and seeds.

Each training is a folder in `cells/`. A killed run resumes. The same command may run several times
at once: each process takes a training that no other works on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

from tokgen.codec.identity import unclaimed
from tokgen.codec.spec import CodecSpec
from tokgen.codec_training.ablation_settings import (
    AblationSettings,
    Condition,
    cell_of,
    conditions_of,
)
from tokgen.codec_training.ablation_table import Measured, ablation_table, plot_ablation
from tokgen.codec_training.crops import open_crops, open_validation
from tokgen.codec_training.settings import TuningSettings
from tokgen.codec_training.sweep import holding_weights
from tokgen.codec_training.tuning import open_tunable, tune_codec
from tokgen.codec_training.validation import Tuned, validate_tuned
from tokgen.corpus.listed import open_corpus
from tokgen.drift.clips import DriftClips
from tokgen.drift.passes import DriftRun, run_drift
from tokgen.drift.shifts import Shift
from tokgen.metrics.table_files import write_table
from tokgen.metrics.tables import Table
from tokgen.runs.cells import locked, share
from tokgen.runs.folder import write_json
from tokgen.runs.settings import claim_run, save_settings
from tokgen.runs.store import slug
from tokgen.zoo.lookup import load_codec

__all__ = ["TUNED", "run_ablation"]

TUNED = "tuned.json"  # last validation of a cell that is done


def run_ablation(s: AblationSettings, *, command: str = "") -> Table | None:
    """Train and measure all cells, and write the results to runs/<name>.

    Writes table.json, .csv, .md and .tex, ablation.png and weights.json (the sweep).

    Args:
        command: the command that repeats this, for the cards of the tuned codecs.
    Returns:
        the table; None if interrupted.
    Raises:
        ValueError, OSError: wrong settings or data, or the folder holds another run.
    """
    base = open_tunable(*(cell_of(s, condition, seed=0) for condition in conditions_of(s)))
    run = Path(s.runs) / s.name
    with locked(run / "plan"):
        claim_run(run, s)
        save_settings(run, s)
    clips = DriftClips(
        open_corpus(s.corpus, split=s.split, where=s.where, min_seconds=s.min_seconds)
    )
    with locked(run / "audio"):  # all cells share the training audio
        open_crops(s.tuning, base.spec.sample_rate, run / "audio")

    plan = _Plan(s, run, command, base.spec)
    weights = plan.choose_weights()
    if weights is None:
        return None
    cells = {
        f"{condition.label}, seed {seed}": (condition, weights.get(condition.label), seed)
        for seed in range(s.seeds)
        for condition in conditions_of(s)
    }
    tunings = {name: (plan.folder(*c), partial(plan.tune, *c)) for name, c in cells.items()}
    if not share("tunings", tunings):
        return None

    # The untuned codec, then every cell, through the drift protocol.
    codecs: dict[str, str | Path] = {"untuned": s.codec}
    codecs |= {name: plan.folder(*cell) / "codec" for name, cell in cells.items()}
    drifts: dict[str, dict[Shift, DriftRun]] = {}

    def measure(name: str) -> bool:
        drifts[name] = _measure(s, name, codecs[name], clips, run / "drift" / slug(name))
        return True

    share("drift", {n: (run / "drift" / slug(n), partial(measure, n)) for n in codecs})
    rows = [Measured("untuned", (), None, {k: [r] for k, r in drifts["untuned"].items()})]
    control = conditions_of(s)[0].label
    for condition in conditions_of(s):
        by_seed = [drifts[f"{condition.label}, seed {seed}"] for seed in range(s.seeds)]
        than = dict.fromkeys(["untuned", control, condition.than])
        rows.append(
            Measured(
                condition.label,
                tuple(t for t in than if t and t != condition.label),
                weights.get(condition.label),
                {shift: [drift[shift] for drift in by_seed] for shift in s.shifts},
            )
        )
    table = ablation_table(rows, s, plan.notes)
    with locked(run / "plan"):
        write_table(table, run)
        plot_ablation(rows, s, run / "ablation.png")
    return table


def _measure(
    s: AblationSettings, name: str, codec: str | Path, clips: DriftClips, out: Path
) -> dict[Shift, DriftRun]:
    """Measure the drift of one codec under each shift."""
    found: dict[Shift, DriftRun] = {}
    for shift in s.shifts:
        loaded = load_codec(codec)
        loaded.spec = replace(loaded.spec, name=name)
        found[shift] = run_drift(
            loaded,
            clips,
            out=out / slug(f"shift {shift}"),
            passes=s.passes,
            shift=shift,
            scored=s.scored,
            n_samples=0,
            progress=False,
        )
    return found


class _Plan:
    """The trainings of an ablation and their folders.

    Args:
        s: settings.
        run: folder of the ablation.
        command: the command that repeats it.
        base: of the codec that is tuned.
    Attributes:
        notes: what the table must say about the weights.
    """

    def __init__(self, s: AblationSettings, run: Path, command: str, base: CodecSpec) -> None:
        self.s, self.run, self.command, self.base = s, run, command, base
        self.largest_first = sorted(s.tuning.sweep, reverse=True)
        self.notes: list[str] = []

    def settings(self, condition: Condition, weight: float | None, seed: int) -> TuningSettings:
        cell = cell_of(self.s, condition, seed=seed, weight=weight)
        tried = "" if cell.loss == "none" or cell.weight is None else f" x {cell.weight:g}"
        name = slug(f"{condition.label}{tried} seed {seed}")
        return replace(cell, name=name, runs=str(self.run / "cells"))

    def folder(self, condition: Condition, weight: float | None, seed: int) -> Path:
        s = self.settings(condition, weight, seed)
        return Path(s.runs) / str(s.name)

    def tune(self, condition: Condition, weight: float | None, seed: int) -> bool:
        """Tune a cell, unless it is done. Returns False if interrupted.

        Raises:
            ValueError: the cell is of another codec, such as one that was trained again.
        """
        s = self.settings(condition, weight, seed)
        if self.trial(condition, weight, seed) is not None:
            about = {"codec": self.base.as_dict()}
            free = unclaimed(self.base, "codec")
            claim_run(self.folder(condition, weight, seed), s, free=free, **about)
            return True
        tuned = tune_codec(s, command=self.command, audio=self.run / "audio")
        if tuned is not None:
            write_json(self.folder(condition, weight, seed) / TUNED, asdict(tuned))
        return tuned is not None

    def trial(self, condition: Condition, weight: float | None, seed: int) -> Tuned | None:
        """Return the last validation of a cell; None if it is not done."""
        path = self.folder(condition, weight, seed) / TUNED
        return Tuned(**json.loads(path.read_text())) if path.is_file() else None

    def choose_weights(self) -> dict[str, float] | None:
        """Return the weight of the loss of each condition that has one; None if interrupted."""
        s = self.s
        conditions = {c.label: c for c in conditions_of(s)}
        own = {label: cell_of(s, c, seed=0) for label, c in conditions.items()}
        with_loss = {label: cell for label, cell in own.items() if cell.loss != "none"}
        chosen = {k: float(x.weight) for k, x in with_loss.items() if x.weight is not None}
        missing = [label for label in with_loss if label not in chosen]
        # One sweep for each loss: with and without the later passes' term, its weight is the same.
        sweeps = {own[label].loss: conditions[label] for label in reversed(missing)}
        if not sweeps:
            return chosen
        with locked(self.run / "plan"):
            path = self.run / "untuned.json"
            if not path.is_file():
                write_json(path, asdict(self._untuned()))
        untuned = Tuned(**json.loads(path.read_text()))
        jobs = {
            f"sweep {loss}": (self.run / "sweeps" / loss, partial(self._sweep, condition, untuned))
            for loss, condition in sweeps.items()
        }
        if not share("sweep", jobs):
            return None
        trials = {loss: self._trials(condition, untuned) for loss, condition in sweeps.items()}
        by_loss = {}
        for loss, found in trials.items():
            held = self._held(found, untuned)
            by_loss[loss] = held[0] if held else self.largest_first[-1]
            if not held:
                self.notes.append(
                    f"{loss}: no weight of {s.tuning.sweep} holds the validation loss within "
                    f"{s.tuning.sweep_tolerance:.0%}; its rows have the smallest"
                )
        chosen |= {label: by_loss[own[label].loss] for label in missing}
        scores = {
            f"{loss} x {w:g}": asdict(trial)
            for loss, found in trials.items()
            for w, trial in found.items()
        }
        write_json(
            self.run / "weights.json",
            {"untuned": asdict(untuned), "trials": scores, "chosen": chosen},
        )
        return chosen

    def _sweep(self, condition: Condition, untuned: Tuned) -> bool:
        """Tune with the weights of the sweep until one holds. Returns False if interrupted."""
        for weight in self.largest_first:
            if not self.tune(condition, weight, 0):
                return False
            if self._held(self._trials(condition, untuned), untuned):
                break
        return True

    def _trials(self, condition: Condition, untuned: Tuned) -> dict[float, Tuned]:
        """Return the trials that are done, from the largest weight to the first that holds."""
        found: dict[float, Tuned] = {}
        for weight in self.largest_first:
            trial = self.trial(condition, weight, 0)
            if trial is None:
                break
            found[weight] = trial
            if self._held(found, untuned):
                break
        return found

    def _held(self, trials: Mapping[float, Tuned], untuned: Tuned) -> list[float]:
        return holding_weights(trials, untuned, self.s.tuning.sweep_tolerance)

    def _untuned(self) -> Tuned:
        s = self.s.tuning
        weights = {"mel": s.weights.mel, "spectral": s.weights.spectral}
        return validate_tuned(
            load_codec(self.s.codec),
            DriftClips(open_validation(s)),
            passes=s.validation_passes,
            weights=weights,
        )
