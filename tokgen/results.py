"""Results of tokgen's functions, as text, HTML, JSON values and data frames.

    result = tokgen.score_codec("speech-16k", "my_audio/")
    print(result)         # the table that the command prints
    result.to_dict()      # what the command prints with --json
    result.to_frame()     # a pandas.DataFrame, one row for each measurement

A notebook shows a result as HTML tables.
"""

from __future__ import annotations

import html
import json
import math
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Grid", "Result", "align", "finite", "one_line", "printable", "short_warning", "to_json"]

_DIRECTIONS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")


@dataclass(frozen=True)
class Grid:
    """A table of strings.

    Attributes:
        rows: rows of cells; the first row is the header.
        title: line above the table; "" for none.
    """

    rows: Sequence[Sequence[str]]
    title: str = ""


class Result(ABC):
    """Base class of results. `str(result)` is the table that the command prints."""

    @abstractmethod
    def parts(self) -> list[Grid | str]:
        """Return tables and lines of text in the order in which they are shown.

        "" is an empty line.
        """

    @abstractmethod
    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON values. NaN is None."""

    @abstractmethod
    def records(self) -> list[dict[str, Any]]:
        """Return one flat record for each measurement. NaN stays NaN."""

    def table(self) -> str:
        """Return the text that the command prints."""
        return "\n".join(_text(part) for part in self.parts())

    def to_frame(self) -> pd.DataFrame:
        """Return the records as a data frame.

        Raises:
            ModuleNotFoundError: pandas is not installed.
        """
        try:
            import pandas
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError(
                "to_frame needs pandas: pip install pandas", name="pandas"
            ) from error
        return pandas.DataFrame.from_records(self.records())

    def __str__(self) -> str:
        return self.table()

    def _repr_html_(self) -> str:
        return "\n".join(_html(part) for part in self.parts() if part)


def align(grid: Sequence[Sequence[str]]) -> str:
    """Format rows of strings as a plain table with aligned columns."""
    from tabulate import tabulate

    rows = [[printable(one_line(text)) for text in row] for row in grid]
    return tabulate(rows, tablefmt="plain", disable_numparse=True)


def one_line(text: str) -> str:
    """Replace line breaks and runs of spaces by single spaces."""
    return " ".join(text.split())


def printable(text: str, keep: str = "") -> str:
    """Write the characters that control a terminal as escapes, such as "\\x1b" and "\\n".

    Names and metadata of files can hold such characters. Other text stays the same.

    Args:
        keep: control characters that stay, such as line breaks.
    """
    if text.isprintable():
        return text
    return "".join(c if c in keep or not _controls(c) else ascii(c)[1:-1] for c in text)


def _controls(character: str) -> bool:
    kind = unicodedata.category(character)
    return kind in ("Cc", "Cs", "Zl", "Zp") or unicodedata.bidirectional(character) in _DIRECTIONS


def short_warning(message: Warning | str, *_: Any, **__: Any) -> str:
    """Write a warning on one line, without its source line, as `warnings.formatwarning`."""
    return f"warning: {printable(one_line(str(message)))}\n"


def finite(value: Any) -> Any:
    """Replace NaN and infinity by None, at any depth."""
    if isinstance(value, dict):
        return {k: finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [finite(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def to_json(content: Any, indent: int | None = 2) -> str:
    """Format values as JSON. NaN and infinity become null, and paths become strings."""
    return json.dumps(finite(content), indent=indent, default=str, allow_nan=False)


def _text(part: Grid | str) -> str:
    if isinstance(part, str):
        return printable(part, keep="\n\t")
    return f"{part.title}\n{align(part.rows)}" if part.title else align(part.rows)


def _html(part: Grid | str) -> str:
    if isinstance(part, str):
        return f"<p>{html.escape(part)}</p>"
    from tabulate import tabulate

    header, *rows = part.rows
    title = f"<h4>{html.escape(part.title)}</h4>\n" if part.title else ""
    table = tabulate(rows, header, tablefmt="html", disable_numparse=True)
    return title + re.sub(r" +(?=</t[hd]>)", "", table)  # tabulate pads the cells
