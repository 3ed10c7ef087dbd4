"""Prepare results for the page: numbers as text, and intervals as bars."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tokgen.drift.depths import PER_DEPTH
from tokgen.metrics.failures import Failure
from tokgen.metrics.statistics import NONE, Estimate, format_interval, format_number
from tokgen.metrics.tables import Difference, Metric, Row, Table
from tokgen.report.reader import DriftResults, PhaseResults, TelephoneResults

__all__ = [
    "DRIFT_LABELS",
    "Bar",
    "Cell",
    "DifferenceRow",
    "Numbers",
    "Pairs",
    "ShownEstimate",
    "codec_hashes",
    "digits",
    "drift_differences",
    "drift_failures",
    "drift_numbers",
    "flatten",
    "phase_numbers",
    "show",
    "span_of",
    "table_differences",
    "table_failures",
    "table_rows",
    "telephone_numbers",
]

DRIFT_LABELS = {
    "pesq": "PESQ",
    "si_sdr": "SI-SDR (dB)",
    "si_sdr_aligned": "SI-SDR, delay taken out (dB)",
    "log_mel": "log mel distance",
    "level": "level (dB)",
    "match_previous": "match with the pass before",
    "match_first": "match with the first pass",
    "depth_match_previous": "depth match with the pass before",
    "depth_match_first": "depth match with the first pass",
    "kbps": "bitrate (kbps)",
    "codebook_use": "codebook use (%)",
    "codebook_use_corrected": "codebook use, corrected (%)",
}


@dataclass(frozen=True)
class Bar:
    """An interval as a bar with lines to compare with, all in percent of the width."""

    low: float
    width: float
    mean: float
    marks: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class ShownEstimate:
    """An estimate as text and bar. Texts are empty if it does not apply or was not measured."""

    mean: str
    interval: str
    count: str
    failed: str
    bar: Bar | None

    def __str__(self) -> str:
        return f"{self.mean} {self.interval}".strip() or NONE


def digits(value: float, places: int) -> str:
    """Format a number with a true minus sign; "" if it is not finite."""
    return format_number(value, places).replace("-", "−")


def show(
    e: Estimate | None,
    places: int,
    span: tuple[float, float] | None,
    marks: Sequence[float] = (),
    *,
    explained: bool = False,
) -> ShownEstimate:
    """Prepare an estimate.

    Args:
        e: the estimate; None if it was not measured.
        places: decimals to show.
        span: values at the ends of the bar; None for no bar.
        marks: values to mark on the bar.
        explained: the failures have reasons. Without reasons, a metric that failed on every clip
            is one that does not apply.
    """
    if e is None or not (e.n or explained):
        return ShownEstimate("", "", "", "", None)
    interval = format_interval(e, places).replace("-", "−")
    failed = f"{e.n_failed} failed" if e.n_failed else ""
    bar = None
    if span is not None and math.isfinite(e.mean):
        low, high = (e.low, e.high) if interval else (e.mean, e.mean)
        at = [_percent(v, span) for v in (low, high, e.mean)]
        bar = Bar(at[0], max(at[1] - at[0], 0.0), at[2], [_percent(m, span) for m in marks])
    return ShownEstimate(digits(e.mean, places), interval, f"n {e.n}", failed, bar)


def span_of(estimates: Iterable[Estimate], extra: Sequence[float] = ()) -> tuple[float, float]:
    """Return the smallest and largest of all means, intervals and `extra`; never an empty span."""
    values = [v for e in estimates for v in (e.low, e.mean, e.high)] + list(extra)
    finite = [v for v in values if math.isfinite(v)]
    if not finite:
        return 0.0, 1.0
    low, high = min(finite), max(finite)
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def _percent(value: float, span: tuple[float, float]) -> float:
    low, high = span
    return round(2 + 96 * min(1.0, max(0.0, (value - low) / (high - low))), 2)


def table_rows(
    table: Table, metrics: Sequence[Metric]
) -> list[tuple[str, list[tuple[Row, list[ShownEstimate]]]]]:
    """Return (kind, [(row, estimates)]) of the rows that have any of the metrics.

    The bars of a metric share their span.
    """
    spans = {
        m.name: span_of(row.values[m.name] for row in table.rows if m.name in row.values)
        for m in metrics
    }
    groups: dict[str, list[tuple[Row, list[ShownEstimate]]]] = {}
    explained = {(f.row, f.metric) for f in table.failures}
    for row in table.rows:
        if any(m.name in row.values for m in metrics):
            shown = [
                show(
                    row.values.get(m.name),
                    m.digits,
                    spans[m.name],
                    explained=(row.name, m.name) in explained,
                )
                for m in metrics
            ]
            groups.setdefault(row.kind, []).append((row, shown))
    return list(groups.items())


@dataclass(frozen=True)
class DifferenceRow:
    """A row of a table of differences. `margin` and `verdict` are "" if there is none."""

    metric: str
    better: str | None
    difference: ShownEstimate
    margin: str
    verdict: str


Pairs = list[tuple[str, str, list[DifferenceRow]]]  # row, the row it is compared with, differences


def table_differences(table: Table, detail: bool) -> Pairs:
    """Return the differences in metrics that are details, or in those that are not.

    The bars of a metric share their span and mark 0 and the margin.
    """
    metrics = {m.name: m for m in table.metrics}
    details = {m.name for m in table.metrics if m.detail}
    found = [d for d in table.differences if (d.metric in details) == detail]
    pairs: dict[tuple[str, str], list[DifferenceRow]] = {}
    for d in found:
        same = [other for other in found if other.metric == d.metric]
        span = span_of((o.estimate for o in same), [0.0, *(m for o in same for m in _margins(o))])
        metric = metrics.get(d.metric, Metric(d.metric, d.metric, None))
        line = DifferenceRow(
            metric.heading,
            metric.better,
            show(d.estimate, metric.digits, span, [0.0, *_margins(d)]),
            "" if d.margin is None else digits(d.margin, metric.digits),
            d.verdict,
        )
        pairs.setdefault((d.row, d.than), []).append(line)
    return [(row, than, lines) for (row, than), lines in pairs.items()]


def _margins(d: Difference) -> list[float]:
    return [] if d.margin is None else [-d.margin, d.margin]


def drift_differences(drift: DriftResults) -> Pairs:
    """Return the differences between codecs after the first and the last pass."""
    metrics, found = {}, []
    for d in drift.differences:
        label = f"{DRIFT_LABELS.get(d.metric, d.metric)} @ {d.passes}"
        metrics[label] = Metric(label, label, None)
        found.append(Difference(d.codec, d.than, label, d.estimate))
    return table_differences(Table([*metrics.values()], [], found), detail=False)


@dataclass(frozen=True)
class Cell:
    """A number as text. `note` has its counts if they are not the expected ones."""

    mean: str
    interval: str = ""
    note: str = ""


@dataclass(frozen=True)
class Numbers:
    """A plain table of the numbers in a figure.

    Attributes:
        headings: of the columns; the first cell of a row is its name.
        groups: title and rows of each group.
    """

    headings: list[str]
    groups: list[tuple[str, list[list[Cell]]]]


def drift_numbers(drift: DriftResults, *, depth: bool = False) -> Numbers:
    """Return means over levels, a group for each codec with one row for each pass.

    Args:
        depth: return the depth and bitrate of codecs of variable bitrate, which else are left out.
    """
    found = {p.metric for s in drift.summaries for p in s.points if p.level is None}
    found = {metric for metric in found if (metric in PER_DEPTH) == depth}
    metrics = [m for m in DRIFT_LABELS if m in found] + sorted(found - set(DRIFT_LABELS))
    groups = []
    for s in drift.summaries:
        if depth and not any(p.metric in PER_DEPTH for p in s.points):
            continue
        known = (p for p in s.points if p.level is None and p.metric in metrics)
        at = {(p.passes, p.metric): p.estimate for p in known}
        why = bool(s.failures)
        rows = [
            [Cell(str(n)), *(_cell(at.get((n, m)), s.n_clips, explained=why) for m in metrics)]
            for n in sorted({passes for passes, _ in at})
        ]
        groups.append((s.name, rows))
    return Numbers(["pass", *(DRIFT_LABELS.get(m, m) for m in metrics)], groups)


def table_failures(table: Table) -> list[Failure]:
    """Return the failures with the labels of their metrics."""
    labels = {m.name: m.label for m in table.metrics}
    return [replace(f, metric=labels.get(f.metric, f.metric)) for f in table.failures]


def drift_failures(drift: DriftResults) -> list[Failure]:
    """Return the failures of all codecs, one for each codec, pass, clip and metric."""
    return [
        Failure(
            f["clip"],
            f"{s.name}, pass {f['pass']}",
            DRIFT_LABELS.get(f["metric"], f["metric"]),
            f["reason"],
        )
        for s in drift.summaries
        for f in s.failures
    ]


def phase_numbers(phase: PhaseResults) -> Numbers:
    """Return shares of equal codes, a group for each codec with one row for each shift."""
    groups = [
        (
            s.name,
            [
                [Cell(f"{ms:+.3g}".replace("-", "−")), _cell(e, e.n, places=3)]
                for ms, e in zip(s.shifts_ms, s.match, strict=True)
            ],
        )
        for s in phase.summaries
    ]
    return Numbers(["shift (ms)", "share of equal codes"], groups)


def telephone_numbers(telephone: TelephoneResults) -> Numbers:
    """Return a group for each metric and codec with one row for each round."""
    groups = [
        (f"{c.label}, {c.codec}", [[Cell(str(n)), _cell(e, 0)] for n, e in c.points])
        for c in telephone.curves
    ]
    return Numbers(["round", "mean"], groups)


def _cell(e: Estimate | None, n_expected: int, places: int = 2, *, explained: bool = True) -> Cell:
    shown = show(e, places, None, explained=explained)
    counts = [shown.failed] if shown.failed else []
    if e is not None and shown.count and e.n != n_expected:
        counts.insert(0, shown.count)
    return Cell(shown.mean or NONE, shown.interval, ", ".join(counts))


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield JSON as pairs of dotted name and value."""
    if isinstance(value, dict) and value:
        for key, inner in value.items():
            yield from flatten(inner, f"{name}.{key}" if name else key)
    elif isinstance(value, list) and any(isinstance(v, dict | list) for v in value):
        for i, inner in enumerate(value):
            yield from flatten(inner, f"{name}.{i}")
    elif isinstance(value, list):
        yield name, ", ".join(_word(v) for v in value) or "none"
    else:
        yield name, _word(value)


def _word(value: Any) -> str:
    if value is None or value == {}:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def codec_hashes(documents: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return name, weights, revision, library and licence of every codec in the settings, once."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for spec in _specs(documents):
        name, weights = _word(spec.get("name")), _word(spec.get("weight_hash") or None)
        keys = ("revision", "library", "licence", "sample_rate")
        about = {key: _word(spec.get(key)) for key in keys}
        found.setdefault((name, weights), {"name": name, "weights": weights, **about})
    return list(found.values())


def _specs(value: Any) -> Iterator[dict[str, Any]]:
    if isinstance(value, dict):
        if "name" in value and ("weight_hash" in value or "bitrate" in value):
            yield value
        for inner in value.values():
            yield from _specs(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _specs(inner)
