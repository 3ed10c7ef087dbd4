"""Table and plots of `offline_quantizers`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from offline_quantizers_fits import Cell
from tokgen.codec.spec import CodecSpec
from tokgen.evaluation.metric import LIMITS, METRICS
from tokgen.evaluation.reasons import failures_of, notes_on
from tokgen.metrics.codebook import use_with_interval
from tokgen.metrics.statistics import (
    NO_LIMITS,
    Estimate,
    bootstrap_ratio,
    judge,
    paired_crossed,
)
from tokgen.metrics.tables import ROW_METRICS, Difference, Metric, Row, Table
from tokgen.plotting import draw_band, new_figure, save_figure, whole_numbers

SHARE = Metric("share_left", "latent variance left", "lower", digits=4)
CODES = (
    Metric("perplexity", "perplexity, mean of levels", None, digits=1),
    Metric("codebook_use", "codebook use", None, "%", 1),
)
COST = (
    Metric("fit_seconds", "fit", None, "CPU s", 1),
    Metric("speed", "encoding", None, "x real time", 1),
    Metric("speed_ratio", "encoding, greedy k-means = 1", None, digits=3),
)
POSITIVE = (0.0, math.inf)
TRAINED = ", trained decoder"
NOTES = (
    "the fit of a nested quantizer is that of its highest bitrate, and its rows share it",
    "encoding is from audio to codes, in CPU seconds; so are the seconds of the fit",
    "perplexity is 2 ** entropy of the codes of all clips; table.csv and table.json have that of "
    "each level, as perplexity_level_1 and so on",
)


@dataclass(frozen=True)
class Measured:
    """Measurements of a row, clip by clip.

    Attributes:
        cell: quantizer or peer, with its bitrate.
        spec: of the codec.
        codes: [k, T] of each clip.
        seconds: CPU seconds of encoding each clip.
        beside: those of greedy k-means, NaN without.
        scores: records of `Scorer`.
        errors: squared error of the quantized latents of each clip; empty for a peer.
        fit_seconds: CPU seconds of the fit; NaN if they are not known.
        trained: the decoder was trained on these codes.
    """

    cell: Cell
    spec: CodecSpec
    codes: list[np.ndarray]
    seconds: list[float]
    beside: list[float]
    scores: list[dict[str, Any]]
    errors: list[float]
    fit_seconds: float = math.nan
    trained: bool = False

    @property
    def label(self) -> str:
        return self.cell.label + TRAINED * self.trained

    @property
    def name(self) -> str:
        return f"{self.label}, {self.cell.kbps:g} kbps"

    @cached_property
    def use(self) -> list[Estimate]:
        """Codebook use in percent: the mean over levels, then each level."""
        return use_with_interval(self.codes, self.spec.codebook_size)["codebook_use"]

    @property
    def perplexities(self) -> list[Estimate]:
        """Perplexity of each level, with the interval of codebook use."""
        size = self.spec.codebook_size
        return [
            replace(e, **{end: size ** (getattr(e, end) / 100) for end in ("mean", "low", "high")})
            for e in self.use[1:]
        ]

    @property
    def mean_perplexity(self) -> Estimate:
        """The mean of the perplexities, without an interval."""
        return _alone(float(np.mean([e.mean for e in self.perplexities])))

    @property
    def is_peer(self) -> bool:
        return not self.errors


def columns(metrics: Sequence[str], backends: Mapping[str, str]) -> list[Metric]:
    """Return the columns of the table that are measured clip by clip."""
    scores = [replace(METRICS[name], backend=backends[name]) for name in metrics]
    digits = {"pesq": 3, "mos": 3}
    return [SHARE, *(replace(m, digits=digits.get(m.name, m.digits)) for m in scores)]


def values(row: Measured, metric: Metric, variances: Sequence[float]) -> np.ndarray:
    """Return numerators and denominators of a column [2, clips]; [2, 0] if the row has none."""
    if metric.name == SHARE.name:
        return np.array([row.errors, variances if row.errors else []], dtype=float)
    return np.array(metric.columns(row.scores), dtype=float)


def applies(row: Measured, metric: Metric) -> np.ndarray:
    """Return which clips of a row can have a metric, as booleans."""
    return np.array([metric.applies(record) for record in row.scores])


def make_table(
    rows: Sequence[Measured],
    metrics: Sequence[Metric],
    durations: Sequence[float],
    variances: Sequence[float],
    notes: Sequence[str],
) -> Table:
    """Return the table of all rows, with paired differences.

    Args:
        metrics: of `columns`.
        durations: seconds of each clip.
        variances: squared distance of the latents of each clip from the mean of all frames.
        notes: what was measured.
    """
    known = [Row(r.name, "resynthesis", r.spec.name, {}) for r in rows]
    for row, shown in zip(rows, known, strict=True):
        shown.values.update(_row_values(row, metrics, durations, variances))
    measured = {name for row in known for name in row.values}
    shown_metrics = [ROW_METRICS[0], *metrics, *CODES, *COST]
    return Table(
        [m for m in shown_metrics if m.name in measured],
        known,
        list(differences(rows, metrics, variances)),
        [*notes, *NOTES, *notes_on({r.name: r.scores for r in rows})],
        [failure for r in rows for failure in failures_of(r.name, r.scores)],
    )


def _row_values(
    row: Measured,
    metrics: Sequence[Metric],
    durations: Sequence[float],
    variances: Sequence[float],
) -> dict[str, Estimate]:
    per_level = row.spec.frame_rate * math.log2(row.spec.codebook_size) / 1000
    found = {"bitrate": _alone(row.cell.levels * per_level)}
    for metric in metrics:
        table = values(row, metric, variances)
        if table.size:
            limits = POSITIVE if metric is SHARE else LIMITS.get(metric.name, NO_LIMITS)
            above, below = table[:, applies(row, metric)]
            found[metric.name] = bootstrap_ratio(above, below, limits=limits)
    found["perplexity"], found["codebook_use"] = row.mean_perplexity, row.use[0]
    if not row.is_peer:
        found["fit_seconds"] = _alone(row.fit_seconds)
    found["speed"] = bootstrap_ratio(durations, row.seconds, limits=POSITIVE)
    if np.isfinite(row.beside).any():
        found["speed_ratio"] = bootstrap_ratio(row.beside, row.seconds, limits=POSITIVE)
    levels = {f"perplexity_level_{k}": e for k, e in enumerate(row.perplexities, 1)}
    return found | levels


def _alone(value: float) -> Estimate:
    """Return a value of a whole row."""
    return Estimate(value, math.nan, math.nan, 0, 0)


def differences(
    rows: Sequence[Measured], metrics: Sequence[Metric], variances: Sequence[float]
) -> Iterator[Difference]:
    """Yield each row minus the peers at its bitrate, minus greedy, and minus before training."""
    for row in rows:
        for than in rows:
            if not row.is_peer and row.cell.kbps == than.cell.kbps and _compared(row, than):
                for metric in metrics:
                    yield from _difference(row, than, metric, variances)


def _compared(row: Measured, than: Measured) -> bool:
    if than.is_peer:
        return True
    if row.cell.quantizer != than.cell.quantizer:
        return False
    searched = row.cell.beam > than.cell.beam == 1 and row.trained == than.trained
    return searched or (row.cell.beam == than.cell.beam and row.trained > than.trained)


def _difference(
    row: Measured, than: Measured, metric: Metric, variances: Sequence[float]
) -> Iterator[Difference]:
    first, second = (values(x, metric, variances) for x in (than, row))
    same_codes = metric.name == SHARE.name and row.trained != than.trained
    if first.size and second.size and not same_codes and metric.better is not None:
        both = applies(row, metric) & applies(than, metric)
        (a, under_a), (b, under_b) = first[:, both], second[:, both]
        estimate = paired_crossed([a], [b], [under_a], [under_b])
        verdict = judge(estimate, better=metric.better)
        yield Difference(row.name, than.name, metric.name, estimate, None, verdict)


def plot_quality(
    rows: Sequence[Measured], table: Table, metrics: Sequence[Metric], path: Path
) -> None:
    """Plot each metric over the bitrate, with 95 % intervals over clips (QinCodec, Figure 4)."""
    lines = _lines(rows)
    found = {row.name: row.values for row in table.rows}
    figure = new_figure(4 * len(metrics), 4.2)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for i, (label, line) in enumerate(lines.items()):
            points = [(r, found[r.name][metric.name]) for r in line if metric.name in found[r.name]]
            points = [(r, e) for r, e in points if math.isfinite(e.mean)]
            x = [found[r.name]["bitrate"].mean for r, _ in points]
            draw_band(axes, x, [e for _, e in points], i, label)
        axes.set(title=metric.heading, xlabel="kbps")
        axes.grid(alpha=0.3)
    _legend(figure, panels)
    save_figure(figure, path)


def plot_perplexity(rows: Sequence[Measured], path: Path) -> None:
    """Plot perplexity: of each level at the highest bitrate, and over the number of codebooks.

    These are the codebooks of Figure 3 of QinCodec.
    """
    lines = _lines([row for row in rows if not row.trained])
    figure = new_figure(10, 4.6)
    left, right = figure.subplots(1, 2)
    for i, (label, line) in enumerate(lines.items()):
        last = line[-1].perplexities
        draw_band(left, range(1, len(last) + 1), last, i, label)
        means = [row.mean_perplexity for row in line]
        draw_band(right, [row.cell.levels for row in line], means, i, label)
    left.set(title="perplexity of each level, at the highest bitrate", xlabel="level")
    right.set(title="perplexity, mean of levels", xlabel="codebooks")
    for axes in (left, right):
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        whole_numbers(axes)
    _legend(figure, [left])
    save_figure(figure, path)


def _lines(rows: Sequence[Measured]) -> dict[str, list[Measured]]:
    """Return the rows of each line of a plot, from the lowest bitrate to the highest."""
    lines: dict[str, list[Measured]] = {}
    for row in sorted(rows, key=lambda row: row.cell.kbps):
        lines.setdefault(row.label, []).append(row)
    return lines


def _legend(figure: Any, panels: Sequence[Any]) -> None:
    every = [axes.get_legend_handles_labels() for axes in panels]
    handles, labels = max(every, key=lambda found: len(found[1]))  # peers have no latents
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
