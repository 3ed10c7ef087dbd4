"""Write tables of results as JSON, CSV, Markdown and LaTeX.

write_table(table, folder)  # table.json, table.csv, table.md and table.tex
"""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from tabulate import tabulate

from tokgen.metrics.statistics import csv_fields
from tokgen.metrics.tables import COLUMNS, Table
from tokgen.results import one_line
from tokgen.runs.folder import write_json

__all__ = ["MARKDOWN_SPECIAL", "NUMBERS", "to_csv", "to_latex", "to_markdown", "write_table"]

NUMBERS = re.compile(r"[-+0-9.,\[\] ]*")  # cells that Markdown shows as they are
MARKDOWN_SPECIAL = "\\`*_[]<>|"


def write_table(table: Table, folder: Path) -> None:
    """Write table.json, table.csv, table.md and table.tex."""
    write_json(folder / "table.json", table.to_dict())
    for name, write in (("csv", to_csv), ("md", to_markdown), ("tex", to_latex)):
        (folder / f"table.{name}").write_text(write(table), encoding="utf-8")


def to_csv(table: Table) -> str:
    """Format a table as CSV with one line for each estimate and difference."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    for start, estimate, end in table.estimates():
        writer.writerow([*start, *csv_fields(estimate), *end])
    return out.getvalue()


def to_markdown(table: Table) -> str:
    """Format a table as Markdown."""

    def escape(text: str) -> str:
        if NUMBERS.fullmatch(text):
            return text
        return one_line("".join("\\" + c if c in MARKDOWN_SPECIAL else c for c in text))

    parts = []
    for grid in _grids(table):
        header, *rows = [[escape(text) for text in row] for row in grid]
        parts.append(tabulate(rows, header, tablefmt="github", disable_numparse=True))
    parts.append("\n".join(f"- {escape(note)}" for note in table.footnotes()))
    return "\n\n".join(parts) + "\n"


def to_latex(table: Table) -> str:
    """Format a table as LaTeX tabulars for the booktabs package, with notes as comments."""
    parts = ["% needs \\usepackage{booktabs}"]
    for grid in _grids(table):
        header, *rows = [[one_line(text) for text in row] for row in grid]
        columns = ["left"] + ["right"] * (len(header) - 1)
        form = {"tablefmt": "latex_booktabs", "disable_numparse": True}
        parts.append(tabulate(rows, header, colalign=columns, **form))
    parts.append("\n".join(f"% {one_line(note)}" for note in table.footnotes()))
    return "\n\n".join(parts) + "\n"


def _grids(table: Table) -> list[list[list[str]]]:
    grids = table.grid(), table.grid(detail=True), table.difference_grid()
    return [grid for grid in grids if grid]
