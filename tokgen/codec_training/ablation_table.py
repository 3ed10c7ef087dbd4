"""Table and plot of an ablation of drift."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tokgen.codec_training.ablation_settings import AblationSettings
from tokgen.drift.passes import DriftRun
from tokgen.drift.shifts import Shift, say_shift
from tokgen.drift.summary import BACKENDS
from tokgen.metrics.statistics import (
    Direction,
    Estimate,
    bootstrap_crossed,
    judge,
    paired_crossed,
)
from tokgen.metrics.tables import Difference, Metric, Row, Table
from tokgen.plotting import draw_band, new_figure, save_figure, whole_numbers

__all__ = ["Column", "Measured", "ablation_table", "columns_of", "plot_ablation"]


@dataclass(frozen=True)
class Measured:
    """One row: a condition, or the untuned codec, with its drift.

    Attributes:
        label: name of the row.
        than: rows that it is compared with.
        weight: of the idempotence loss; None without one.
        runs: for each shift of the settings, one `DriftRun` per seed.
    """

    label: str
    than: tuple[str, ...]
    weight: float | None
    runs: dict[Shift, list[DriftRun]]

    def values(self, shift: Shift, metric: str, n: int) -> np.ndarray:
        """Return a metric after n passes, [seeds, clips]."""
        return np.stack([run.at(metric, n) for run in self.runs[shift]])


class Column(NamedTuple):
    """A metric after some passes under a shift."""

    metric: Metric
    shift: Shift
    values: str
    passes: int


def columns_of(s: AblationSettings) -> list[Column]:
    """Return the columns of the table: PESQ and SI-SDR, and the match of codes without shifts."""
    found = []
    for shift in s.shifts:
        moved = f", {say_shift(shift)}" if shift else ""
        for n in sorted({min(s.scored), *sorted(s.scored)[-2:]}):
            name = f"pesq_{n}" + (f"_shift_{shift}" if shift else "")
            found.append(_column(name, f"PESQ @ {n}{moved}", "higher", 2, shift, "pesq", n))
        if not shift:
            last = s.passes
            found.append(
                _column(f"si_sdr_{last}", f"SI-SDR @ {last}", "higher", 1, 0, "si_sdr", last, "dB")
            )
            for n in sorted({2, last}):
                label = f"match {n - 1}-{n}"
                name = f"match_{n}"
                found.append(_column(name, label, "higher", 3, 0, "match_previous", n))
    return found


def _column(
    name: str,
    label: str,
    better: Direction,
    digits: int,
    shift: Shift,
    values: str,
    n: int,
    unit: str = "",
) -> Column:
    metric = Metric(name, label, better, unit, digits, backend=BACKENDS[values])
    return Column(metric, shift, values, n)


def ablation_table(
    rows: Sequence[Measured], s: AblationSettings, notes: Sequence[str] = ()
) -> Table:
    """Make the table of means and of differences, paired over clips and seeds.

    Args:
        notes: more notes, on the weights.
    """
    columns = columns_of(s)
    by_label = {row.label: row for row in rows}
    shown = []
    for row in rows:
        values = {}
        for column in columns:
            table = row.values(column.shift, column.values, column.passes)
            values[column.metric.name] = bootstrap_crossed(table, n_resamples=s.n_resamples)
        shown.append(Row(_name(row), "resynthesis", s.codec, values))
    differences = []
    for row in rows:
        for other in (by_label[label] for label in row.than):
            for column in columns:
                if column.passes not in (min(s.scored), s.passes):
                    continue
                e = _difference(row, other, column, s)
                verdict = judge(e, better=column.metric.better or "higher")
                differences.append(
                    Difference(_name(row), _name(other), column.metric.name, e, None, verdict)
                )
    first = rows[0].runs[s.shifts[0]][0]
    seeds = f"{s.seeds} seeds" if s.seeds > 1 else "one seed"
    about = [
        f"{s.codec}, tuned for {s.tuning.steps} steps with {seeds}; intervals over clips"
        + (" and seeds" if s.seeds > 1 else " only"),
        f"drift: {first.conditions}; {len(first.ids)} clips, {s.passes} passes",
    ]
    return Table([column.metric for column in columns], shown, differences, [*about, *notes])


def _name(row: Measured) -> str:
    return row.label if row.weight is None else f"{row.label} (weight {row.weight:g})"


def _difference(row: Measured, other: Measured, column: Column, s: AblationSettings) -> Estimate:
    second = row.values(column.shift, column.values, column.passes)
    first = other.values(column.shift, column.values, column.passes)
    if len(first) != len(second):  # the untuned codec has no seeds
        first = np.broadcast_to(first, second.shape)
    return paired_crossed(first, second, n_resamples=s.n_resamples)


def plot_ablation(rows: Sequence[Measured], s: AblationSettings, path: Path) -> None:
    """Plot PESQ against passes, one panel for each shift, with 95 % intervals."""
    figure = new_figure(5.2 * len(s.shifts), 4.2)
    panels = np.atleast_1d(figure.subplots(1, len(s.shifts), sharey=True))
    for axes, shift in zip(panels, s.shifts, strict=True):
        for i, row in enumerate(rows):
            passes = sorted(s.scored)
            estimates = [
                bootstrap_crossed(row.values(shift, "pesq", n), n_resamples=s.n_resamples)
                for n in passes
            ]
            draw_band(axes, passes, estimates, i, _name(row))
        title = say_shift(shift) if shift else "same frames in every pass"
        axes.set(title=title, xlabel="passes", ylabel="PESQ (MOS-LQO)")
        axes.grid(alpha=0.3)
        whole_numbers(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8)
    save_figure(figure, path)
