"""Compare codecs by the speech that is generated from their tokens (Code Drift's Table II).

Every mean has an interval over clips and training seeds. Each codec is compared with the first one
over the same seeds and clips, so the table shows which differences are significant.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from tokgen.comparison.settings import RELATIVE, check_margins
from tokgen.evaluation.metric import LIMITS, METRICS
from tokgen.evaluation.reasons import failures_of, notes_on, warn_of_high_cer
from tokgen.metrics import pesq
from tokgen.metrics.statistics import (
    NO_LIMITS,
    Estimate,
    Limits,
    bootstrap_crossed,
    judge,
    paired_crossed,
)
from tokgen.metrics.tables import ROW_METRICS, Difference, Metric, Row, Table

__all__ = [
    "ACCURACY_BACKEND",
    "Records",
    "RowData",
    "accuracy_metrics",
    "accuracy_records",
    "compare",
    "limits_of",
]

Records = Sequence[Mapping[str, Any]]

ACCURACY_BACKEND = "tokgen (share of hidden codes whose likeliest guess is right, four mask shares)"


@dataclass(frozen=True)
class RowData:
    """Measurements of one row, clip by clip.

    Attributes:
        name: name of the row.
        kind: "original", "resynthesis" or "generated".
        codec: name of the codec; None for the original.
        records: for each training seed, one record per clip. All rows have the same clips.
        extra: estimates for the row as a whole, by the names of `ROW_METRICS`.
        unconditional: the row was generated without conditioning. It is the floor of margins that
            are shares of a span, and is not compared with other rows.
    """

    name: str
    kind: str
    codec: str | None
    records: Sequence[Records]
    extra: Mapping[str, Estimate] = field(default_factory=dict)
    unconditional: bool = False


def accuracy_metrics(n_levels: int) -> list[Metric]:
    """Return the metrics of token accuracy over all levels, and of each level.

    Neither direction is better: how easy a code is to guess also depends on the codec.
    """
    ratio = ("hits", "hidden")
    found = [Metric("accuracy", "token accuracy", None, "", 3, ratio, backend=ACCURACY_BACKEND)]
    for k in range(n_levels):
        ratio = (f"hits{k}", f"hidden{k}")
        found.append(Metric(f"accuracy_level{k}", f"level {k}", None, "", 3, ratio, detail=True))
    return found


def accuracy_records(hits: np.ndarray, hidden: np.ndarray) -> list[dict[str, float]]:
    """Convert the counts [C, K] of `tokgen.evaluation.accuracy.token_accuracy` to record fields."""
    out = []
    for right, total in zip(hits, hidden, strict=True):
        record = {"hits": float(right.sum()), "hidden": float(total.sum())}
        for k in range(len(right)):
            record |= {f"hits{k}": float(right[k]), f"hidden{k}": float(total[k])}
        out.append(record)
    return out


def compare(
    data: Sequence[RowData],
    backends: Mapping[str, str],
    *,
    margins: Mapping[str, float] | None = None,
    drift_passes: int = 25,
    notes: Sequence[str] = (),
) -> Table:
    """Return means with intervals of every row, and differences of each codec from the first.

    Differences are between rows of one kind: generated minus generated, resynthesis minus
    resynthesis.

    Args:
        data: rows in the order of the table. The others are compared with the first codec.
        backends: metric to backend, as in `Scorer.backends`.
        margins: metric to the largest loss that does not matter. A metric without a margin never
            gets the verdict "no worse". Margins of metrics that were not measured are ignored. The
            margin of PESQ is a share of the span from unconditional generation to resynthesis, both
            of the first codec. If there is no such span, PESQ has no verdict.
        drift_passes: encodings behind the field "drift_pesq", if records have it.
        notes: lines to show under the table.
    Raises:
        ValueError: a margin for a metric without a verdict, rows of unequal clips, or different
            numbers of seeds within a kind.
    """
    margins = dict(margins or {})
    found_margins: dict[str, float | str] = {**margins}
    fields = {f for row in data for records in row.records for r in records[:1] for f in r}
    levels = sum(f.startswith("hidden") for f in fields) - 1  # "hidden" and "hidden<k>"
    per_clip = [replace(METRICS[name], backend=backend) for name, backend in backends.items()]
    if "drift_pesq" in fields:
        label = f"PESQ @ {drift_passes}"
        per_clip.append(Metric("drift_pesq", label, "higher", backend=pesq.BACKEND))
    per_clip += accuracy_metrics(levels) if levels > 0 else []
    check_margins(margins)
    counts = {row.name: {len(records) for records in row.records} for row in data}
    if len(set().union(*counts.values())) > 1:
        raise ValueError(f"rows of unequal clips {counts}: each needs the same utterances")
    rows = []
    for row in data:
        found = {metric.name: _counts(row, metric) for metric in per_clip}
        values = {
            name: bootstrap_crossed(
                c.numerators[:, c.applies], c.denominators[:, c.applies], limits=limits_of(name)
            )
            for name, c in found.items()
            if c is not None
        }
        rows.append(Row(row.name, row.kind, row.codec, values | dict(row.extra)))
    measured = {name for row in rows for name in row.values}
    metrics = [m for m in (*per_clip, *ROW_METRICS) if m.name in measured]
    notes = list(notes)
    for metric in per_clip:
        if metric.name in margins and metric.name in RELATIVE:
            margin, note = _margin_of_span(data, metric, margins[metric.name])
            found_margins[metric.name] = margin
            notes.append(note)
    differences = []
    first: dict[str, RowData] = {}
    for row in data:
        if row.kind == "original" or row.unconditional:
            continue
        base = first.setdefault(row.kind, row)
        if base is not row:
            differences += _differences(base, row, per_clip, found_margins)
    by_row = {row.name: [r for records in row.records for r in records] for row in data}
    failures = [f for name, records in by_row.items() for f in failures_of(name, records)]
    originals = [row.values.get("cer") for row in rows if row.kind == "original"]
    more = [*notes_on(by_row), *(note for e in originals for note in warn_of_high_cer(e))]
    return Table(metrics, rows, differences, [*notes, *more], failures)


def _differences(
    base: RowData, row: RowData, metrics: Sequence[Metric], margins: Mapping[str, float | str]
) -> list[Difference]:
    """Compare a row with the first of its kind.

    Args:
        margins: metric to margin, or to the reason why there is none and so no verdict.
    """
    if len(base.records) != len(row.records):
        raise ValueError(
            f"{base.name} has {len(base.records)} seeds and {row.name} {len(row.records)}: "
            "pairs need the same"
        )
    found = []
    for metric in metrics:
        ours, theirs = _counts(row, metric), _counts(base, metric)
        if ours is None or theirs is None:
            continue
        keep = ours.applies & theirs.applies
        sides = theirs.numerators, ours.numerators, theirs.denominators, ours.denominators
        estimate = paired_crossed(*(side[:, keep] for side in sides))
        margin = margins.get(metric.name)
        verdict = ""
        if isinstance(margin, str):
            margin, verdict = None, f"no verdict: {margin}"
        elif metric.better:
            verdict = judge(estimate, better=metric.better, margin=margin)
        found.append(Difference(row.name, base.name, metric.name, estimate, margin, verdict))
    return found


def _margin_of_span(
    data: Sequence[RowData], metric: Metric, share: float
) -> tuple[float | str, str]:
    """Return a margin in the metric's unit, or why there is none; and a note about it."""
    rows = {
        "unconditional": next((row for row in data if row.unconditional), None),
        "resynthesis": next((row for row in data if row.kind == "resynthesis"), None),
    }
    means, ends = [], []
    for name, row in rows.items():
        counts = None if row is None else _counts(row, metric)
        if row is None or counts is None:
            why = f"no {name} row"
            return why, f"{metric.label} has no verdict: its margin needs a span, but has {why}"
        means.append(bootstrap_crossed(counts.numerators, counts.denominators).mean)
        ends.append(f"{means[-1]:.2f} ({row.name})")
    span, text = means[1] - means[0], " to ".join(ends)
    if not span > 0:  # or a mean is NaN
        why = "resynthesis is not above unconditional"
        return why, f"{metric.label} has no verdict: {why}, {text}"
    return (
        share * span,
        f"margin of {metric.label}: {share * span:.3f}, {100 * share:g} % of {text}",
    )


def limits_of(metric: str) -> Limits:
    """Return the smallest and largest value of a metric of a comparison."""
    return (0, 1) if metric.startswith("accuracy") else LIMITS.get(metric, NO_LIMITS)


class _Counts(NamedTuple):
    """Values of a metric: numerators and denominators [S, C], and the clips [C] it applies to."""

    numerators: np.ndarray
    denominators: np.ndarray
    applies: np.ndarray


def _counts(row: RowData, metric: Metric) -> _Counts | None:
    """Return the values of a metric; None if the row does not have it."""
    name = metric.ratio[0] if metric.ratio else metric.name
    if not row.records[0] or name not in row.records[0][0]:
        return None
    pairs = [metric.columns(records) for records in row.records]
    numerators, denominators = (np.array([p[i] for p in pairs], dtype=float) for i in (0, 1))
    applies = np.array([[metric.applies(r) for r in records] for records in row.records])
    return _Counts(numerators, denominators, np.asarray(applies.any(0)))
