"""Codecs by what a generator makes of their tokens: rows, paired differences, verdicts.

The numbers of Code Drift's Table II, with what is needed to say whether a difference is real:
every mean with its interval over clips and training seeds, and each codec against the first one
by the same seeds and clips.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from tokgen.evaluation.metric import METRICS, Metric
from tokgen.metrics import pesq
from tokgen.metrics.statistics import (
    Estimate,
    bootstrap_crossed,
    judge,
    paired_crossed,
)

Records = Sequence[Mapping[str, Any]]


ACCURACY_BACKEND = "tokgen (share of hidden codes whose likeliest guess is right, four mask shares)"


ROW_METRICS = (  # what belongs to a row as a whole
    Metric("bitrate", "bitrate", None, "kbps"),
    Metric("training_speed", "training", None, "steps/s"),
    Metric("sampling_speed", "sampling", None, "x real time", 1),
)


def drift_metric(passes: int) -> Metric:
    """PESQ after so many encodings, in records as "drift_pesq"."""
    return Metric("drift_pesq", f"PESQ @ {passes}", "higher")


@dataclass(frozen=True)
class RowData:
    """What was measured of one row.

    Attributes:
        name: of the row.
        kind: "original", "resynthesis" or "generated".
        codec: None for the original.
        records: one list a training seed, each with a record a clip; all rows have the same clips
            in the same order.
        extra: estimates of the row as a whole, by the names of `ROW_METRICS`.
    """

    name: str
    kind: str
    codec: str | None
    records: Sequence[Records]
    extra: Mapping[str, Estimate] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """A line of the table: metric -> estimate, only those that it has."""

    name: str
    kind: str
    codec: str | None
    values: dict[str, Estimate]


@dataclass(frozen=True)
class RowDifference:
    """`row` minus `than` in a metric, paired; what it says about `row`.

    The verdict is "" where neither way is better.
    """

    row: str
    than: str
    metric: str
    estimate: Estimate
    margin: float | None
    verdict: str


@dataclass(frozen=True)
class Comparison:
    """The table.

    Attributes:
        metrics: columns.
        backends: metric -> who computed it.
        rows: lines.
        differences: of each codec's rows from the first codec's.
        notes: what to know beside the numbers.
    """

    metrics: list[Metric]
    backends: dict[str, str]
    rows: list[Row]
    differences: list[RowDifference]
    notes: list[str]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""

        def flat(item: Row | RowDifference) -> dict[str, Any]:
            content = asdict(item)
            estimate = content.pop("estimate", {})
            return content | estimate

        metrics = [{**asdict(m), "backend": self.backends.get(m.name, "")} for m in self.metrics]
        return {
            "metrics": metrics,
            "rows": [flat(row) for row in self.rows],
            "differences": [flat(d) for d in self.differences],
            "notes": self.notes,
        }


def accuracy_metrics(n_levels: int) -> list[Metric]:
    """Token accuracy over all levels, and of each.

    Neither way is better: what is easy to guess depends on the codec's codes too.
    """
    shares = [Metric("accuracy", "token accuracy", None, digits=3, ratio=("hits", "hidden"))]
    for k in range(n_levels):
        fields = (f"hits{k}", f"hidden{k}")
        name, label = f"accuracy_level{k}", f"level {k}"
        shares.append(Metric(name, label, None, digits=3, ratio=fields, detail=True))
    return shares


def accuracy_records(hits: np.ndarray, hidden: np.ndarray) -> list[dict[str, float]]:
    """[C, K] of `tokgen.evaluation.accuracy.token_accuracy` as fields of records."""
    out = []
    for right, total in zip(hits, hidden, strict=True):
        record = {"hits": float(right.sum()), "hidden": float(total.sum())}
        for k in range(len(right)):
            record |= {f"hits{k}": float(right[k]), f"hidden{k}": float(total[k])}
        out.append(record)
    return out


def check_margins(margins: Mapping[str, float]) -> None:
    """Refuse margins of what is never judged, and such as `judge` would refuse."""
    known = [*(name for name, metric in METRICS.items() if metric.better), "drift_pesq"]
    unknown = sorted(set(margins) - set(known))
    if unknown:
        raise ValueError(f"margins of {unknown}: judged are {', '.join(known)}")
    for name, margin in margins.items():
        if not 0 <= margin < math.inf:
            raise ValueError(f"margin of {name} = {margin}: must be at least 0 and finite")


def compare(
    data: Sequence[RowData],
    backends: Mapping[str, str],
    *,
    margins: Mapping[str, float] | None = None,
    drift_passes: int = 25,
    notes: Sequence[str] = (),
) -> Comparison:
    """Means with intervals of every row, and differences of each codec from the first.

    Differences are taken between rows of one kind: generated from generated, resynthesis from
    resynthesis.

    Args:
        data: rows in the table's order; the first codec among them is the one compared with.
        backends: metric -> who computed it, `Scorer.backends`.
        margins: metric -> the largest loss that does not matter, for "no worse"; metrics
            without one are never called so. What is not measured needs none.
        drift_passes: encodings behind the records' "drift_pesq", where they have it.
        notes: lines to stand under the table.
    Raises:
        ValueError: a margin for what is never judged, rows of unequal clips, or
            different numbers of seeds within a kind.
    """
    margins = dict(margins or {})
    fields = {f for row in data for records in row.records for r in records[:1] for f in r}
    levels = sum(f.startswith("hidden") for f in fields) - 1  # "hidden" and "hidden<k>"
    per_clip = [METRICS[name] for name in backends]
    per_clip += [drift_metric(drift_passes)] if "drift_pesq" in fields else []
    per_clip += accuracy_metrics(levels) if levels > 0 else []
    check_margins(margins)
    counts = {row.name: {len(records) for records in row.records} for row in data}
    if len(set().union(*counts.values())) > 1:
        raise ValueError(f"rows of unequal clips {counts}: each needs the same utterances")
    rows = [_summarise(row, per_clip) for row in data]
    shown = {name for row in rows for name in row.values}
    metrics = [m for m in (*per_clip, *ROW_METRICS) if m.name in shown]
    differences = []
    first: dict[str, RowData] = {}
    for row in data:
        if row.kind == "original":
            continue
        base = first.setdefault(row.kind, row)
        if base is not row:
            differences += _differences(base, row, per_clip, margins)
    known = {"drift_pesq": pesq.BACKEND, "accuracy": ACCURACY_BACKEND}
    backends = dict(backends) | {k: v for k, v in known.items() if k in shown}
    return Comparison(metrics, backends, rows, differences, list(notes))


def _summarise(row: RowData, metrics: Sequence[Metric]) -> Row:
    values = {}
    for metric in metrics:
        tables = _tables(row, metric)
        if tables is not None:
            values[metric.name] = bootstrap_crossed(*tables)
    return Row(row.name, row.kind, row.codec, values | dict(row.extra))


def _differences(
    base: RowData, row: RowData, metrics: Sequence[Metric], margins: Mapping[str, float]
) -> list[RowDifference]:
    if len(base.records) != len(row.records):
        raise ValueError(
            f"{base.name} has {len(base.records)} seeds and {row.name} {len(row.records)}: "
            "pairs need the same"
        )
    found = []
    for metric in metrics:
        ours, theirs = _tables(row, metric), _tables(base, metric)
        if ours is None or theirs is None:
            continue
        estimate = paired_crossed(theirs[0], ours[0], theirs[1], ours[1])
        margin = margins.get(metric.name)
        verdict = judge(estimate, better=metric.better, margin=margin) if metric.better else ""
        found.append(RowDifference(row.name, base.name, metric.name, estimate, margin, verdict))
    return found


def _tables(row: RowData, metric: Metric) -> tuple[np.ndarray, np.ndarray] | None:
    """Numerators and denominators [S, C]; None where the row does not have the metric."""
    name = metric.ratio[0] if metric.ratio else metric.name
    if not row.records[0] or name not in row.records[0][0]:
        return None
    pairs = [metric.columns(records) for records in row.records]
    tables = [np.array([p[i] for p in pairs], dtype=float) for i in (0, 1)]
    return tables[0], tables[1]


def is_known(estimate: Estimate | None) -> bool:
    """Whether there is a number to show."""
    return estimate is not None and not math.isnan(estimate.mean)
