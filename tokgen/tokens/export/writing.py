"""Write an export of a token dataset: `export_tokens`."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from tokgen.results import Grid, Result
from tokgen.runs.folder import write_json
from tokgen.runs.locks import lock_folder
from tokgen.runs.progress import progress_bar
from tokgen.tokens.columns import codes_of, depths_of
from tokgen.tokens.dataset import TokenDataset, load_tokens
from tokgen.tokens.export.formats import WRITERS, Split
from tokgen.tokens.export.outputs import EXPORT, KIND, check_export
from tokgen.tokens.export.rows import ExportedRow
from tokgen.tokens.export.sequences import Layout
from tokgen.tokens.export.settings import ExportSettings
from tokgen.tokens.provenance import side_column

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["Exported", "export_tokens"]

_ROWS = 64  # rows that are read at a time


@dataclass(frozen=True)
class Exported(Result):
    """A finished export.

    Attributes:
        out: its folder.
        layout, format: as in `ExportSettings`.
        vocabulary_size: number of different values.
        fill: value where the layout has no code, or None.
        rows: utterances of each split.
        n_tokens: values of each split, with fill.
    """

    out: Path
    layout: str
    format: str
    vocabulary_size: int
    fill: int | None
    rows: dict[str, int]
    n_tokens: dict[str, int]

    def parts(self) -> list[Grid | str]:
        fill = "" if self.fill is None else f", {self.fill} where there is no code"
        about = f"{self.layout} in {self.format}, {self.vocabulary_size} values{fill}"
        table = [["split", "utterances", "tokens"]]
        table += [[name, str(n), str(self.n_tokens[name])] for name, n in self.rows.items()]
        return [f"{self.out}: {about}", Grid(table)]

    def to_dict(self) -> dict[str, Any]:
        return {**vars(self), "out": str(self.out)}

    def records(self) -> list[dict[str, Any]]:
        return [
            {"split": name, "utterances": n, "tokens": self.n_tokens[name]}
            for name, n in self.rows.items()
        ]


def export_tokens(
    tokens: str | Path | TokenDataset,
    out: str | Path,
    *,
    layout: str = "flat",
    format: str = "jsonl",
    shard_rows: int = 1000,
    overwrite: bool = False,
    progress: bool = True,
) -> Exported:
    """Write a token dataset as sequences for language models.

    `tokgen.tokens.export.reading.import_tokens` reads it back, with equal codes, lengths, texts,
    speakers and side information. The conditioning is left out.

    Args:
        tokens: a token dataset, or its folder or hub id.
        out: folder to write, completely or not at all.
        layout, format, shard_rows: see `ExportSettings`.
        overwrite: replace an earlier export.
        progress: show a bar if it takes long.
    Raises:
        ValueError: an unknown layout or format, or a layout that cannot hold the codes.
        FileExistsError: `out` exists, and `overwrite` is False, or it is no export.
        FileNotFoundError: no such dataset.
    """
    settings = ExportSettings(layout=layout, format=format, shard_rows=shard_rows)  # type: ignore[arg-type]
    check_export(out, overwrite=overwrite)
    out = Path(out)
    source = tokens if isinstance(tokens, TokenDataset) else load_tokens(tokens)
    about = source.provenance
    laid = Layout.of(settings.layout, about)
    work = out.absolute().with_name(f".{out.absolute().name}.partial")
    partial = work / "export"
    rows = {name: len(part) for name, part in source.splits.items()}
    n_tokens = dict.fromkeys(rows, 0)
    with lock_folder(work):
        shutil.rmtree(partial, ignore_errors=True)  # what an interrupted export left
        partial.mkdir()
        bar = progress_bar(
            "exporting", total=sum(rows.values()), unit="clip", delay=5, show=progress
        )
        with bar:
            for name, part in source.splits.items():
                split = Split(partial, name, out, about.sample_rate, settings.shard_rows)

                def counted(part: Dataset = part, name: str = name) -> Iterator[ExportedRow]:
                    for row in _exported(part, laid, about.side_names):
                        n_tokens[name] += row.tokens.size
                        yield row
                        bar.update()

                WRITERS[settings.format](split, counted())
        values = laid.vocabulary_size, laid.fill
        done = Exported(out, layout, format, *values, rows, n_tokens)
        found = {name: value for name, value in done.to_dict().items() if name != "out"}
        write_json(partial / EXPORT, {"kind": KIND, **found, "provenance": about.as_dict()})
        if out.exists():
            shutil.rmtree(out)
        partial.rename(out.absolute())
    return done


def _exported(part: Dataset, layout: Layout, side_names: list[str]) -> Iterator[ExportedRow]:
    for start in range(0, len(part), _ROWS):
        rows = part.select(range(start, min(start + _ROWS, len(part))))
        found = depths_of(rows)
        depths: list[Tensor | None] = [None] * len(rows) if found is None else [*found]
        columns = {name: list(rows[name]) for name in ("id", "n_samples", "text", "speaker")}
        sides = {side_column(name): list(rows[side_column(name)]) for name in side_names}
        for i, (codes, depth) in enumerate(zip(codes_of(rows), depths, strict=True)):
            yield ExportedRow(
                tokens=layout.lay_out(codes, depth),
                side={name: [float(v) for v in values[i]] for name, values in sides.items()},
                **{name: values[i] for name, values in columns.items()},
            )
