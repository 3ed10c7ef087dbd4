"""Numbers as the page shows them: text, intervals, bars in percent of a column's width."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokgen.metrics.statistics import Estimate
from tokgen.report.reader import Drift, Metric, Phase, Table, TableDifference, Telephone

DRIFT_LABELS = {
    "pesq": "PESQ",
    "si_sdr": "SI-SDR (dB)",
    "si_sdr_aligned": "SI-SDR, delay taken out (dB)",
    "log_mel": "log mel distance",
    "level": "level (dB)",
    "match_previous": "match with the pass before",
    "match_first": "match with the first pass",
    "codebook_use": "codebook use (%)",
    "codebook_use_corrected": "codebook use, corrected (%)",
}


@dataclass(frozen=True)
class Bar:
    """An interval and its mean, in percent of the width; `marks` are lines to compare with."""

    low: float
    width: float
    mean: float
    marks: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Cell:
    """An estimate as text and bar; empty text where it was not measured."""

    mean: str
    interval: str
    count: str
    failed: str
    bar: Bar | None

    def __str__(self) -> str:
        return f"{self.mean} {self.interval}".strip() or "–"


def digits(value: float, places: int) -> str:
    """A number with a true minus sign; "" for NaN."""
    return f"{value:.{places}f}".replace("-", "−") if math.isfinite(value) else ""


def cell(
    e: Estimate | None, places: int, span: tuple[float, float] | None, marks: Sequence[float] = ()
) -> Cell:
    """An estimate for people.

    Args:
        e: None where it was not measured.
        places: after the point.
        span: what the bar's ends stand for; None leaves it out.
        marks: values to mark on the bar.
    """
    if e is None:
        return Cell("", "", "", "", None)
    known = math.isfinite(e.low) and math.isfinite(e.high)
    interval = f"[{digits(e.low, places)}, {digits(e.high, places)}]" if known else ""
    failed = f"{e.n_failed} failed" if e.n_failed else ""
    bar = None
    if span is not None and math.isfinite(e.mean):
        low, high = (e.low, e.high) if known else (e.mean, e.mean)
        at = [_percent(v, span) for v in (low, high, e.mean)]
        bar = Bar(at[0], max(at[1] - at[0], 0.0), at[2], [_percent(m, span) for m in marks])
    return Cell(digits(e.mean, places), interval, f"n {e.n}", failed, bar)


def span_of(estimates: Iterable[Estimate], extra: Sequence[float] = ()) -> tuple[float, float]:
    """The least and the greatest of all means, intervals and `extra`; never empty."""
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
) -> list[tuple[str, list[tuple[Any, list[Cell]]]]]:
    """(kind, [(row, cells of the metrics)]) of rows that have any; bars span a column."""
    spans = {
        m.name: span_of(row.values[m.name] for row in table.rows if m.name in row.values)
        for m in metrics
    }
    groups: dict[str, list[tuple[Any, list[Cell]]]] = {}
    for row in table.rows:
        if any(m.name in row.values for m in metrics):
            cells = [cell(row.values.get(m.name), m.digits, spans[m.name]) for m in metrics]
            groups.setdefault(row.kind, []).append((row, cells))
    return list(groups.items())


@dataclass(frozen=True)
class DifferenceRow:
    """A line of a table of differences; `better` is "higher", "lower" or ""."""

    metric: str
    better: str
    difference: Cell
    margin: str
    verdict: str


Pairs = list[tuple[str, str, list[DifferenceRow]]]  # row, what it is compared with, differences


def table_differences(table: Table, detail: bool) -> Pairs:
    """Paired differences in the metrics that are details, or in those that are not.

    Bars are scaled over all of one metric, with 0 and the margin marked.
    """
    metrics = {m.name: m for m in table.metrics}
    folded = {m.name for m in table.metrics if m.detail}
    return _pairs([d for d in table.differences if (d.metric in folded) == detail], metrics)


def drift_differences(drift: Drift) -> Pairs:
    """Paired differences between codecs after the first and the last pass."""
    found = [
        TableDifference(d.codec, d.than, f"{d.metric}@{d.passes}", d.estimate, math.nan, "")
        for d in drift.differences
    ]
    metrics = {
        f"{d.metric}@{d.passes}": Metric(
            d.metric, f"{DRIFT_LABELS.get(d.metric, d.metric)} @ {d.passes}", "", "", "", 2
        )
        for d in drift.differences
    }
    return _pairs(found, metrics)


def _pairs(found: Sequence[TableDifference], metrics: Mapping[str, Metric]) -> Pairs:
    pairs: dict[tuple[str, str], list[DifferenceRow]] = {}
    for d in found:
        same = [other for other in found if other.metric == d.metric]
        span = span_of((o.estimate for o in same), [0.0, *(m for o in same for m in _margins(o))])
        metric = metrics.get(d.metric)
        places = metric.digits if metric else 2
        label = metric.label if metric else d.metric
        if metric and metric.unit:
            label = f"{label} ({metric.unit})"
        difference = cell(d.estimate, places, span, [0.0, *_margins(d)])
        line = DifferenceRow(
            label, metric.better if metric else "", difference, digits(d.margin, places), d.verdict
        )
        pairs.setdefault((d.row, d.than), []).append(line)
    return [(row, than, lines) for (row, than), lines in pairs.items()]


def _margins(d: TableDifference) -> list[float]:
    return [-d.margin, d.margin] if math.isfinite(d.margin) else []


@dataclass(frozen=True)
class Numbers:
    """A plain table behind a figure."""

    headings: list[str]
    rows: list[list[str]]


def drift_numbers(drift: Drift) -> Numbers:
    """Means over levels, a line a codec and pass."""
    found = {p.metric for s in drift.summaries for p in s.points if p.level is None}
    metrics = [m for m in DRIFT_LABELS if m in found] + sorted(found - set(DRIFT_LABELS))
    rows = []
    for s in drift.summaries:
        at = {(p.passes, p.metric): p.estimate for p in s.points if p.level is None}
        for n in sorted({passes for passes, _ in at}):
            cells = [_plain(at.get((n, metric)), s.n_clips) for metric in metrics]
            rows.append([s.name, str(n), *cells])
    return Numbers(["codec", "pass", *(DRIFT_LABELS.get(m, m) for m in metrics)], rows)


def phase_numbers(phase: Phase) -> Numbers:
    """Share of equal codes, a line a codec and shift."""
    rows = [
        [s.name, f"{ms:+.3g}".replace("-", "−"), _plain(e, e.n, 3)]
        for s in phase.summaries
        for ms, e in zip(s.shifts_ms, s.match, strict=True)
    ]
    return Numbers(["codec", "shift (ms)", "share of equal codes"], rows)


def telephone_numbers(telephone: Telephone) -> Numbers:
    """A line a metric, codec and round."""
    rows = [[c.label, c.codec, str(n), _plain(e, 0)] for c in telephone.curves for n, e in c.points]
    return Numbers(["metric", "codec", "round", "mean"], rows)


def _plain(e: Estimate | None, n_expected: int, places: int = 2) -> str:
    """One line of text; counts only where they are not the expected ones."""
    shown = cell(e, places, None)
    counts = [shown.failed] if e is not None and e.n_failed else []
    if e is not None and e.n != n_expected:
        counts.insert(0, shown.count)
    return f"{shown} ({', '.join(counts)})" if counts else str(shown)


def flatten(value: Any, name: str = "") -> Iterator[tuple[str, str]]:
    """JSON as (dotted name, value) pairs."""
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
    """Every codec named in settings: name, weights, revision, library, licence; each once."""
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
