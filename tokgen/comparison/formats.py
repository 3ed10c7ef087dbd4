"""A comparison as text, CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from tokgen.comparison.compare import ROW_METRICS, Comparison, is_known
from tokgen.evaluation.metric import Metric
from tokgen.metrics.statistics import Estimate
from tokgen.runs.folder import write_json

LATEX_SPECIAL = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}",
}  # fmt: skip
VERDICTS = (
    "better: the interval lies wholly on the good side of 0; no worse: its bad end lies within the "
    "margin; worse: all of it lies beyond the margin, or on the bad side of 0 where there is none; "
    "worse, margin undecided: all of it on the bad side of 0, the margin inside; undecided: "
    "anything else"
)
WHOLE_ROWS = {metric.name for metric in ROW_METRICS}
NUMBERS = re.compile(r"[-+0-9.,\[\] ]*")  # of a cell; not for a link or anything else
MARKDOWN_SPECIAL = "\\`*_[]<>|"


def write_comparison(comparison: Comparison, folder: Path) -> list[Path]:
    """Write table.json, table.csv, table.md and table.tex; their paths."""
    write_json(folder / "table.json", comparison.as_dict())
    texts = {
        "table.csv": to_csv(comparison),
        "table.md": to_markdown(comparison),
        "table.tex": to_latex(comparison),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in ("table.json", *texts)]


def to_text(comparison: Comparison) -> str:
    """For a terminal: a block a kind of number, notes and backends underneath."""
    main, levels = _split(comparison.metrics)
    blocks = [_aligned(_grid(comparison, main, _cell))]
    if levels:
        grid = [row for row in _grid(comparison, levels, _short) if any(c != "-" for c in row[1:])]
        blocks.append("token accuracy by level\n" + _aligned(grid))
    if comparison.differences:
        blocks.append("paired differences\n" + _aligned(_difference_grid(comparison)))
    return "\n\n".join([*blocks, "\n".join(_notes(comparison))])


def to_csv(comparison: Comparison) -> str:
    """One line a number: row, kind, codec, compared with, metric, estimate, margin, verdict."""
    out = io.StringIO()
    table = csv.writer(out, lineterminator="\n")
    names = ["mean", "low", "high", "n", "n_failed"]
    table.writerow(["row", "kind", "codec", "than", "metric", *names, "margin", "verdict"])
    kinds = {row.name: row for row in comparison.rows}
    for row in comparison.rows:
        for name, e in row.values.items():
            table.writerow([row.name, row.kind, row.codec or "", "", name, *_numbers(e), "", ""])
    for d in comparison.differences:
        row = kinds[d.row]
        margin = "" if d.margin is None else d.margin
        start = [d.row, row.kind, row.codec or "", d.than, d.metric]
        table.writerow([*start, *_numbers(d.estimate), margin, d.verdict])
    return out.getvalue()


def to_markdown(comparison: Comparison) -> str:
    """Two tables, the second of paired differences, and notes."""

    def escape(text: str) -> str:
        if NUMBERS.fullmatch(text):
            return text
        safe = "".join("\\" + c if c in MARKDOWN_SPECIAL else c for c in text)
        return " ".join(safe.split())

    def table(grid: Sequence[Sequence[str]]) -> str:
        lines = ["| " + " | ".join(escape(cell) for cell in row) + " |" for row in grid]
        return "\n".join([lines[0], "|" + "---|" * len(grid[0]), *lines[1:]])

    main, levels = _split(comparison.metrics)
    parts = [table(_grid(comparison, main, _cell))]
    if levels:
        parts.append(table(_with_values(_grid(comparison, levels, _cell))))
    if comparison.differences:
        parts.append(table(_difference_grid(comparison)))
    parts.append("\n".join(f"- {escape(note)}" for note in _notes(comparison)))
    return "\n\n".join(parts) + "\n"


def to_latex(comparison: Comparison) -> str:
    """A booktabs tabular of the rows and one of the differences, notes as comments."""

    def escape(text: str) -> str:
        return " ".join("".join(LATEX_SPECIAL.get(c, c) for c in text).split())

    def tabular(grid: Sequence[Sequence[str]]) -> str:
        lines = [" & ".join(escape(cell) for cell in row) + r" \\" for row in grid]
        spec = "l" + "r" * (len(grid[0]) - 1)
        return "\n".join(
            [rf"\begin{{tabular}}{{{spec}}}", r"\toprule", lines[0], r"\midrule", *lines[1:],
             r"\bottomrule", r"\end{tabular}"]
        )  # fmt: skip

    main, levels = _split(comparison.metrics)
    parts = ["% needs \\usepackage{booktabs}", tabular(_grid(comparison, main, _cell))]
    if levels:
        parts.append(tabular(_with_values(_grid(comparison, levels, _cell))))
    if comparison.differences:
        parts.append(tabular(_difference_grid(comparison)))
    parts.append("\n".join("% " + " ".join(note.split()) for note in _notes(comparison)))
    return "\n\n".join(parts) + "\n"


def _notes(comparison: Comparison) -> list[str]:
    """Under the table: notes, verdicts, how many clips, failures, backends."""
    lines = list(comparison.notes)
    if comparison.differences:
        lines.append(VERDICTS)
    estimates = [
        e for row in comparison.rows for name, e in row.values.items() if name not in WHOLE_ROWS
    ]
    counts = sorted({e.n for e in estimates if e.n})
    if counts:
        lines.append("n = " + " to ".join(dict.fromkeys(str(n) for n in (counts[0], counts[-1]))))
    for row in comparison.rows:
        failed = [f"{name} {e.n_failed}" for name, e in row.values.items() if e.n_failed]
        if failed:
            lines.append(f"failed in {row.name}: {', '.join(failed)}")
    return lines + [f"{name}: {backend}" for name, backend in comparison.backends.items()]


def _split(metrics: Sequence[Metric]) -> tuple[list[Metric], list[Metric]]:
    """The columns of the table, and the accuracy of each level, which has one of its own."""
    levels = [m for m in metrics if m.detail]
    return [m for m in metrics if m not in levels], levels


def _grid(comparison: Comparison, metrics: Sequence[Metric], cell) -> list[list[str]]:
    header = ["row", *(_label(m) for m in metrics)]
    lines = [
        [row.name, *(cell(row.values.get(m.name), m) for m in metrics)] for row in comparison.rows
    ]
    return [header, *lines]


def _with_values(grid: list[list[str]]) -> list[list[str]]:
    return [grid[0], *(row for row in grid[1:] if any(c != "-" for c in row[1:]))]


def _difference_grid(comparison: Comparison) -> list[list[str]]:
    by_name = {m.name: m for m in comparison.metrics}
    _, levels = _split(comparison.metrics)
    grid = [["row", "minus", "metric", "difference [95 %]", "n", "margin", "verdict"]]
    for d in comparison.differences:
        metric = by_name[d.metric]
        if metric not in levels:
            margin = "-" if d.margin is None else f"{d.margin:g}"
            cell = _cell(d.estimate, metric, sign=True)
            failed = f" ({d.estimate.n_failed} failed)" if d.estimate.n_failed else ""
            n = f"{d.estimate.n}{failed}"
            grid.append([d.row, d.than, _label(metric), cell, n, margin, d.verdict or "-"])
    return grid


def _aligned(grid: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in grid) for i in range(len(grid[0]))]
    return "\n".join(
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in grid
    )


def _label(metric: Metric) -> str:
    return f"{metric.label} ({metric.unit})" if metric.unit else metric.label


def _short(e: Estimate | None, metric: Metric) -> str:
    return f"{e.mean:.{metric.digits}f}" if e is not None and is_known(e) else "-"


def _cell(e: Estimate | None, metric: Metric, sign: bool = False) -> str:
    if e is None or not is_known(e):
        return "-"
    form = f"{'+' if sign else ''}.{metric.digits}f"
    spread = "" if math.isnan(e.low) else f" [{e.low:{form}}, {e.high:{form}}]"
    return f"{e.mean:{form}}{spread}"


def _numbers(e: Estimate) -> list[str | int]:
    found = asdict(e)
    means = ["" if math.isnan(found[k]) else f"{found[k]:.6g}" for k in ("mean", "low", "high")]
    return [*means, e.n, e.n_failed]
