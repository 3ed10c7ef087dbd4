"""Values of single clips as flat records, and as JSON, CSV and Parquet files."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tokgen.disk import disk_errors
from tokgen.evaluation.metric import METRICS, OF_ROWS, OF_TEXT
from tokgen.evaluation.settings import CLIP_FILES
from tokgen.results import finite, to_json

__all__ = ["COLUMNS", "clip_values", "write_clips"]

COLUMNS = {  # names and types; None where a column does not apply
    "clip": str,
    "row": str,
    "codec": str,
    "metric": str,
    "value": float,
    "weight": float,
    "status": str,
    "reason": str,
    "transcript": str,
}


def clip_values(
    records: Sequence[Mapping[str, Any]],
    metrics: Sequence[str],
    codecs: Mapping[str, str | None] | None = None,
) -> list[dict[str, Any]]:
    """Return one flat record for each clip, row and metric.

    Args:
        records: records of clips, as in `Scores.per_clip`.
        metrics: names of the metrics that were measured. Those that have one value for a row are
            left out.
        codecs: name of a row to that of its codec.
    Returns:
        Records with the keys `COLUMNS`. "status" is "ok", "failed" or "does not apply"; the last
        two have no value, and a reason. The mean over clips is that of "value", with "weight" as
        weights: the characters or words of the transcript for CER and WER, otherwise 1.
    """
    return [value for record in records for value in _values(record, metrics, codecs or {})]


def _values(
    record: Mapping[str, Any], metrics: Sequence[str], codecs: Mapping[str, str | None]
) -> Iterator[dict[str, Any]]:
    for name in metrics:
        if name in OF_ROWS:
            continue
        [numerator], [denominator] = METRICS[name].columns([record])
        failed = record.get("failures", {}).get(name)
        senseless = record.get("not_applicable", {}).get(name)
        known = math.isfinite(numerator) and math.isfinite(denominator) and denominator > 0
        yield {
            "clip": str(record.get("id", record.get("clip"))),
            "row": record["row"],
            "codec": codecs.get(record["row"]),
            "metric": name,
            "value": numerator / denominator if known else None,
            "weight": denominator if known else None,
            "status": "ok" if known else "does not apply" if senseless else "failed",
            "reason": None if known else senseless or failed or "the value is not finite",
            "transcript": record.get("transcript") if name in OF_TEXT else None,
        }


def write_clips(values: Sequence[Mapping[str, Any]], path: str | Path) -> None:
    """Write records of `clip_values` to a .json, .csv or .parquet file, completely or not at all.

    Raises:
        ValueError: another suffix.
        OSError: the file cannot be written.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in CLIP_FILES:
        raise ValueError(f"{path}: must end in {', '.join(CLIP_FILES)}")
    partial = path.with_name(path.name + ".partial")
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            {".json": _write_json, ".csv": _write_csv, ".parquet": _write_parquet}[suffix](
                values, partial
            )
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


def _write_json(values: Sequence[Mapping[str, Any]], path: Path) -> None:
    path.write_text(to_json(list(values)) + "\n", encoding="utf-8")


def _write_csv(values: Sequence[Mapping[str, Any]], path: Path) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(COLUMNS), lineterminator="\n")
        writer.writeheader()
        writer.writerows(finite(dict(value)) for value in values)


def _write_parquet(values: Sequence[Mapping[str, Any]], path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    types = {str: pa.string(), float: pa.float64()}
    schema = pa.schema([(name, types[kind]) for name, kind in COLUMNS.items()])
    pq.write_table(pa.Table.from_pylist([dict(value) for value in values], schema), path)
