"""Read an export of a token dataset.

for row in read_rows("exported", "train"):
    row.id, row.tokens                    # the array in the layout of the export
tokens = import_tokens("exported")        # the token dataset, without its conditioning
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokgen.nn.files import read_json
from tokgen.tokens.columns import token_features
from tokgen.tokens.dataset import TokenDataset, load_tokens
from tokgen.tokens.export.formats import READERS, Split
from tokgen.tokens.export.outputs import EXPORT, KIND
from tokgen.tokens.export.rows import ExportedRow
from tokgen.tokens.export.sequences import Layout
from tokgen.tokens.export.settings import FORMATS, LAYOUTS
from tokgen.tokens.provenance import Provenance, add_provenance, side_column

__all__ = ["ExportFolder", "import_tokens", "open_export", "read_rows"]

_SPLIT = re.compile(r"\w+(\.\w+)*")


@dataclass(frozen=True)
class ExportFolder:
    """An export that was opened.

    Attributes:
        folder: its folder.
        format: one of `FORMATS`.
        layout: layout of its tokens.
        rows: utterances of each split.
        provenance: codec, corpus and settings behind the tokens.
    """

    folder: Path
    format: str
    layout: Layout
    rows: dict[str, int]
    provenance: Provenance


def open_export(folder: str | Path) -> ExportFolder:
    """Open an export.

    Raises:
        FileNotFoundError: no such folder, or it holds no export.
        ValueError: export.json is damaged.
    """
    path = Path(folder) / EXPORT
    if not path.is_file():
        raise FileNotFoundError(
            f"{folder} holds no export (no {EXPORT}): make one with `tokgen export-tokens`"
        )
    found = read_json(path)
    rows, layout, form = found.get("rows"), found.get("layout"), found.get("format")
    if found.get("kind") != KIND or layout not in LAYOUTS or form not in FORMATS:
        raise ValueError(f"{path} is not of the kind {KIND!r}: export the tokens again")
    if not isinstance(rows, dict) or not all(
        isinstance(n, int) and _SPLIT.fullmatch(name) for name, n in rows.items()
    ):
        raise ValueError(f"{path}: rows must be the number of utterances of each split")
    about = Provenance.from_json(json.dumps(found.get("provenance")), str(path))
    return ExportFolder(Path(folder), form, Layout.of(layout, about), rows, about)


def read_rows(folder: str | Path, split: str) -> Iterator[ExportedRow]:
    """Yield the utterances of a split, in their order.

    Raises:
        FileNotFoundError, ValueError: as `open_export`; there is no such split, or a file is
            damaged or has another number of rows.
    """
    opened = open_export(folder)
    if split not in opened.rows:
        raise ValueError(f"no split {split!r}: the export has {', '.join(opened.rows)}")
    place = Split(opened.folder, split, opened.folder, opened.provenance.sample_rate)
    count = 0
    try:
        for row in READERS[opened.format](place):
            count += 1
            yield row
    except (OSError, EOFError, ValueError, TypeError, OverflowError) as error:
        where = f"{folder}, split {split!r}, row {count}"
        raise ValueError(f"{where} cannot be read ({error}): export the tokens again") from error
    if count != opened.rows[split]:
        raise ValueError(
            f"{folder} has {count} rows of the split {split!r}, not {opened.rows[split]}: export "
            "the tokens again"
        )


def import_tokens(folder: str | Path) -> TokenDataset:
    """Read an export back as a token dataset in memory, without its conditioning.

    Raises:
        FileNotFoundError, ValueError: as `read_rows`, or codes that do not fit the layout.
    """
    from datasets import Dataset, DatasetDict

    opened = open_export(folder)
    about = replace(opened.provenance, conditioning=None)
    variable = about.rate is not None
    features = token_features(about.n_codebooks, {}, about.side_names, variable=variable)
    features = add_provenance(features, about)
    splits = {}
    for split, n in opened.rows.items():
        rows: list[dict[str, Any]] = []
        for i, row in enumerate(read_rows(folder, split)):
            try:
                codes = opened.layout.codes(row.tokens)
            except ValueError as error:
                raise ValueError(f"{folder}, split {split!r}, row {i}: {error}") from error
            sides = {name: row.side.get(name) for name in map(side_column, about.side_names)}
            rows.append({
                "id": row.id, "codes": codes, "n_samples": row.n_samples, "text": row.text,
                "speaker": row.speaker, **sides,
            })  # fmt: skip
        if n:
            splits[split] = Dataset.from_list(rows, features=features)
    return load_tokens(DatasetDict(splits))
