"""Tables of results.

A `Table` has an `Estimate` for each row and metric, and paired differences between rows.

    table = Table.from_dict(json.loads(path.read_text()))
    print(table)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from tokgen.metrics.failures import Failure, failure_lines
from tokgen.metrics.statistics import NONE, Direction, Estimate, format_estimate
from tokgen.results import Grid, Result

__all__ = [
    "COLUMNS",
    "KINDS",
    "ROW_METRICS",
    "VERDICTS",
    "Difference",
    "Metric",
    "Row",
    "Table",
]

KINDS = ("original", "resynthesis", "generated")
VERDICTS = (
    "better: the interval lies wholly on the good side of 0; no worse: its bad end lies within the "
    "margin; worse: all of it lies beyond the margin, or on the bad side of 0 if there is no "
    "margin; worse, margin undecided: all of it lies on the bad side of 0 and the margin is inside "
    "it; undecided: anything else; no verdict: the metric has no margin, for the reason given"
)
COLUMNS = (
    *("row", "kind", "codec", "than", "metric"),
    *("mean", "low", "high", "n", "n_failed"),
    *("margin", "verdict"),
)


@dataclass(frozen=True)
class Metric:
    """A column of a table.

    Attributes:
        name: key in records, files and settings.
        label: heading in tables.
        better: "higher" or "lower"; None if neither direction is better.
        unit: unit of the value, "" for a pure number.
        digits: decimals to show.
        ratio: record fields of numerator and denominator if the metric is pooled over clips.
        detail: show the metric in a second table.
        backend: library and weights that compute the metric.
    """

    name: str
    label: str
    better: Direction | None
    unit: str = ""
    digits: int = 2
    ratio: tuple[str, str] | None = None
    detail: bool = False
    backend: str = ""

    @property
    def heading(self) -> str:
        """Label with unit."""
        return f"{self.label} ({self.unit})" if self.unit else self.label

    def applies(self, record: Mapping[str, Any]) -> bool:
        """Return whether the metric can be measured on the clip of a record by its nature."""
        return self.name not in record.get("not_applicable", ())

    def columns(self, records: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
        """Numerators and denominators of clips; the denominators of a mean are 1."""
        if self.ratio is None:
            return [r[self.name] for r in records], [1.0] * len(records)
        return [r[self.ratio[0]] for r in records], [r[self.ratio[1]] for r in records]


ROW_METRICS = (  # one value for a whole row, not for each clip
    Metric("bitrate", "bitrate", None, "kbps"),
    Metric("training_speed", "training", None, "steps/s"),
    Metric("sampling_speed", "sampling", None, "x real time", 1),
)


@dataclass(frozen=True)
class Row:
    """A row of a table.

    Attributes:
        name: shown in the first column.
        kind: one of `KINDS`.
        codec: name of the codec; None for originals.
        values: metric name to estimate; metrics that were not measured are absent.
    """

    name: str
    kind: str
    codec: str | None
    values: dict[str, Estimate]


@dataclass(frozen=True)
class Difference:
    """A paired difference between two rows.

    Attributes:
        row, than: names of the rows; the difference is `row` minus `than`.
        metric: name of the metric.
        estimate: the difference with its interval.
        margin: largest loss that does not matter; None if none was set.
        verdict: verdict on `row` (`tokgen.metrics.statistics.judge`), or "no verdict: " and the
            reason; "" if neither direction of the metric is better.
    """

    row: str
    than: str
    metric: str
    estimate: Estimate
    margin: float | None = None
    verdict: str = ""


@dataclass(frozen=True)
class Table(Result):
    """Results of several rows in several metrics.

    Attributes:
        metrics: columns, in order.
        rows: rows, in order.
        differences: paired differences between rows.
        notes: lines to show under the table.
        failures: metrics that failed, clip by clip.
    """

    metrics: list[Metric]
    rows: list[Row]
    differences: list[Difference] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    def parts(self) -> list[Grid | str]:
        details = self.grid(detail=True, intervals=False)
        grids = [
            Grid(self.grid()),
            Grid(details, "token accuracy by level"),
            Grid(self.difference_grid(), "paired differences"),
        ]
        shown: list[Grid | str] = []
        for grid in grids:
            if grid.rows:
                shown += [grid, ""]
        return [*shown, *self.footnotes()]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each row and metric, then one for each difference."""
        return [
            dict(zip(COLUMNS, [*start, *vars(estimate).values(), *end], strict=True))
            for start, estimate, end in self.estimates()
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of table.json."""
        rows = [
            vars(row) | {"values": {name: e.as_dict() for name, e in row.values.items()}}
            for row in self.rows
        ]
        differences = [
            {key: value for key, value in vars(d).items() if key != "estimate"}
            | d.estimate.as_dict()
            for d in self.differences
        ]
        return {
            "metrics": [asdict(metric) for metric in self.metrics],
            "rows": rows,
            "differences": differences,
            "notes": self.notes,
            "failures": self.failures_as_dict(),
        }

    def rows_as_dict(self) -> dict[str, dict[str, dict[str, Any]]]:
        """Return {row: {metric: {mean, low, high, n, n_failed, backend}}}, as in metrics.json."""
        backends = {metric.name: metric.backend for metric in self.metrics}
        return {
            row.name: {m: e.as_dict() | {"backend": backends[m]} for m, e in row.values.items()}
            for row in self.rows
        }

    def failures_as_dict(self) -> list[dict[str, str]]:
        """Return [{clip, row, metric, reason}]."""
        return [asdict(failure) for failure in self.failures]

    @classmethod
    def from_dict(
        cls, content: Mapping[str, Any], known: Mapping[str, Metric] | None = None
    ) -> Table:
        """Read the content of a table.json or a metrics.json. Rows are sorted by kind.

        Args:
            content: the parsed file. In metrics.json, "rows" is `rows_as_dict` and "codec" a name.
            known: metrics by name, for the labels, units and digits that metrics.json lacks.
        Raises:
            KeyError, TypeError, ValueError, AttributeError: the content is damaged.
        """
        if isinstance(content.get("rows"), Mapping):
            content = _convert_metrics_json(content, known or {})
        rows = [_read_row(row) for row in content.get("rows") or []]
        return cls(
            [_read_metric(metric) for metric in content.get("metrics") or []],
            sorted(rows, key=lambda row: KINDS.index(row.kind)),
            [_read_difference(d) for d in content.get("differences") or []],
            [_text(note) for note in content.get("notes") or []],
            [
                Failure(*(_text(f[key]) for key in ("clip", "row", "metric", "reason")))
                for f in content.get("failures") or []
            ],
        )

    def estimates(self) -> Iterator[tuple[list[Any], Estimate, list[Any]]]:
        """Yield estimates and differences, each between the other values of `COLUMNS`."""
        for row in self.rows:
            for name, estimate in row.values.items():
                yield [row.name, row.kind, row.codec, "", name], estimate, [None, ""]
        rows = {row.name: row for row in self.rows}
        for d in self.differences:
            row = rows[d.row]
            start = [d.row, row.kind, row.codec, d.than, d.metric]
            yield start, d.estimate, [d.margin, d.verdict]

    def grid(self, *, detail: bool = False, intervals: bool = True) -> list[list[str]]:
        """Return header and rows of the metrics with this `detail`; [] if there are none."""
        metrics = [m for m in self.metrics if m.detail == detail]
        if not metrics:
            return []
        rows = []
        for row in self.rows:
            estimates = [row.values.get(m.name) for m in metrics]
            if not intervals:
                estimates = [e and replace(e, low=math.nan, high=math.nan) for e in estimates]
            cells = [format_estimate(e, m.digits) for e, m in zip(estimates, metrics, strict=True)]
            if not detail or set(cells) != {NONE}:
                rows.append([row.name, *cells])
        return [["row", *(m.heading for m in metrics)], *rows]

    def difference_grid(self) -> list[list[str]]:
        """Return header and rows of the differences, without details; [] if there are none."""
        if not self.differences:
            return []
        metrics = {m.name: m for m in self.metrics if not m.detail}
        grid = [["row", "minus", "metric", "difference [95 %]", "n", "margin", "verdict"]]
        for d in self.differences:
            if (metric := metrics.get(d.metric)) is None:
                continue
            e = d.estimate
            difference = format_estimate(e, metric.digits, sign=True)
            n = f"{e.n} ({e.n_failed} failed)" if e.n_failed else str(e.n)
            margin = NONE if d.margin is None else f"{d.margin:.3g}"
            grid.append([d.row, d.than, metric.heading, difference, n, margin, d.verdict or NONE])
        return grid

    def footnotes(self) -> list[str]:
        """Return notes, the meaning of verdicts, numbers of clips, failures and backends."""
        lines = list(self.notes)
        if self.differences:
            lines.append(VERDICTS)
        whole = {metric.name for metric in ROW_METRICS}
        counts = {e.n for row in self.rows for m, e in row.values.items() if e.n and m not in whole}
        if counts:
            lines.append("n = " + " to ".join(str(n) for n in sorted({min(counts), max(counts)})))
        for row in self.rows:
            failed = [f"{name} {e.n_failed}" for name, e in row.values.items() if e.n_failed]
            if failed:
                lines.append(f"failed in {row.name}: {', '.join(failed)}")
        lines += failure_lines(self.failures)
        return lines + [f"{m.label}: {m.backend}" for m in self.metrics if m.backend]


def _convert_metrics_json(
    content: Mapping[str, Any], known: Mapping[str, Metric]
) -> Mapping[str, Any]:
    """Convert the content of a metrics.json to the form of a table.json."""
    metrics: dict[str, dict[str, Any]] = {}
    rows = []
    for name, values in content["rows"].items():
        codec = None if name == "original" else content.get("codec")
        rows.append({"name": name, "kind": name, "codec": codec, "values": values})
        for key, value in values.items():
            metric = known.get(key, Metric(key, key, None, digits=3))
            metrics.setdefault(key, asdict(metric) | {"backend": value.get("backend")})
    rest = {key: content.get(key) for key in ("notes", "failures")}
    return {"metrics": [*metrics.values()], "rows": rows, **rest}


def _read_metric(content: Mapping[str, Any]) -> Metric:
    name, better, digits = _text(content["name"]), content.get("better"), content.get("digits")
    return Metric(
        name,
        _text(content.get("label")) or name,
        better if better in ("higher", "lower") else None,
        _text(content.get("unit")),
        2 if digits is None else min(6, max(0, int(digits))),
        detail=content.get("detail") is True,
        backend=_text(content.get("backend")),
    )


def _read_row(content: Mapping[str, Any]) -> Row:
    kind = _text(content.get("kind"))
    return Row(
        _text(content["name"]),
        kind if kind in KINDS else "generated",
        _text(content.get("codec")) or None,
        {name: Estimate.from_dict(value) for name, value in content["values"].items()},
    )


def _read_difference(content: Mapping[str, Any]) -> Difference:
    margin = content.get("margin")
    return Difference(
        _text(content["row"]),
        _text(content["than"]),
        _text(content["metric"]),
        Estimate.from_dict(content),
        None if margin is None else float(margin),
        _text(content.get("verdict")),
    )


def _text(value: Any) -> str:
    """Convert a string or number to text, and None to ""."""
    if isinstance(value, dict | list):
        raise TypeError(f"expected a string, found {type(value).__name__}")
    return "" if value is None else str(value)
