"""Read run folders into dataclasses. Nothing in a folder is trusted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokgen.audio.files import display_name
from tokgen.comparison.telephone_results import TelephoneCurve
from tokgen.drift.differences import DriftDifference
from tokgen.drift.phase import Correlation, PhaseSummary
from tokgen.drift.summary import DriftSummary
from tokgen.evaluation.metric import METRICS
from tokgen.metrics.tables import Table
from tokgen.report.json_files import (
    check_size,
    clean,
    clean_text,
    damaged,
    items,
    mapping,
    number,
    parse_json,
    text,
)
from tokgen.report.listening import Listening, read_drift_audio, read_samples
from tokgen.runs.folder import read_history

__all__ = ["KNOWN", "DriftResults", "PhaseResults", "Run", "TelephoneResults", "read_run"]

KNOWN = (
    *("table.json", "metrics.json", "history.jsonl", "samples/index.json", "settings.json"),
    *("drift.json", "phase.json", "drift/drift.json", "drift/phase.json"),
    "telephone/telephone.json",
)


@dataclass(frozen=True)
class DriftResults:
    """Content of drift.json; `backends` maps metrics to backends."""

    summaries: list[DriftSummary]
    differences: list[DriftDifference]
    backends: dict[str, str]


@dataclass(frozen=True)
class PhaseResults:
    """Content of phase.json."""

    summaries: list[PhaseSummary]
    correlation: Correlation | None


@dataclass(frozen=True)
class TelephoneResults:
    """Content of telephone.json; `backends` maps metrics to backends."""

    curves: list[TelephoneCurve]
    backends: dict[str, str]


@dataclass(frozen=True)
class Run:
    """Content of a run folder. A part is None or empty if the folder does not have it.

    Attributes:
        drift, phase, telephone: results of repeated encoding, of shifts and of repeated editing.
        histories: histories of trainings, by cell name; "" for the run itself.
        listenings: audio to listen to.
        documents: settings, hashes and versions as JSON, by title.
    """

    name: str
    table: Table | None
    drift: DriftResults | None
    phase: PhaseResults | None
    telephone: TelephoneResults | None
    histories: dict[str, list[dict[str, float]]]
    listenings: list[Listening]
    documents: dict[str, dict[str, Any]]


def read_run(folder: Path, n_clips: int = 12) -> Run:
    """Read a run folder.

    Args:
        folder: folder of a run.
        n_clips: number of utterances to read, from the first on.
    Raises:
        ValueError: there is no such folder, it is not a run, it has nothing to show, or a file is
            damaged.
    """
    shown = clean_text(display_name(folder))
    if not folder.is_dir():
        raise ValueError(f"{shown}: no such folder; give the folder of a run")
    if not any((folder / name).is_file() for name in KNOWN) and not (folder / "cells").is_dir():
        raise ValueError(
            f"{shown} is no run: expected at least one of {', '.join(KNOWN)} or cells/; give the "
            "folder that a recipe or `tokgen drift` wrote"
        )
    table = parse_json(folder / "table.json", _table)
    if table is None:
        table = parse_json(folder / "metrics.json", _table)
    drift_at = folder / "drift" if (folder / "drift" / "drift.json").is_file() else folder
    phase_at = folder / "drift" if (folder / "drift" / "phase.json").is_file() else folder
    drift = parse_json(drift_at / "drift.json", _drift)
    listenings = [
        parse_json(folder / "samples" / "index.json", lambda c: read_samples(c, folder, n_clips)),
        read_drift_audio(drift_at, drift.summaries, n_clips) if drift else None,
    ]
    run = Run(
        clean_text(display_name(folder.resolve().name or "run")),
        table,
        drift,
        parse_json(phase_at / "phase.json", _phase),
        parse_json(folder / "telephone" / "telephone.json", _telephone),
        _histories(folder),
        [found for found in listenings if found is not None and found.clips],
        _documents(folder, drift_at, phase_at),
    )
    parts = (run.table, run.drift, run.phase, run.telephone, run.histories, run.listenings)
    if not any(parts):
        raise ValueError(
            f"{shown} holds nothing to show: expected a table of metrics, training history, "
            "samples, drift or telephone results; let the run finish first"
        )
    return run


def _table(content: dict[str, Any]) -> Table | None:
    parts: dict[str, Any] = {
        name: [mapping(part, name) for part in items(content.get(name), name)]
        for name in ("metrics", "differences")
    }
    for part in (*parts["metrics"], *parts["differences"]):
        for name in ("digits", "margin"):
            number(part.get(name))
    rows = content.get("rows")
    if isinstance(rows, dict):  # metrics.json
        parts["rows"] = {name: _values(values) for name, values in rows.items()}
    else:
        found = [mapping(row, "rows") for row in items(rows, "rows")]
        parts["rows"] = [{**row, "values": _values(row["values"])} for row in found]
    failures = [mapping(f, "failures") for f in items(content.get("failures"), "failures")]
    names = ("clip", "row", "metric", "reason")
    parts["failures"] = [{name: text(f.get(name)) for name in names} for f in failures]
    parts["notes"] = items(content.get("notes"), "notes")
    table = Table.from_dict(content | parts, METRICS)
    return table if table.metrics and table.rows else None


def _values(content: Any) -> dict[str, dict[str, Any]]:
    return {name: mapping(value, name) for name, value in mapping(content, "values").items()}


def _drift(content: dict[str, Any]) -> DriftResults | None:
    found = [DriftSummary.from_dict(c) for c in items(content.get("codecs"), "codecs")]
    summaries = [s for s in found if s.points]
    if not summaries:
        return None
    differences = items(content.get("differences"), "differences")
    return DriftResults(
        summaries,
        [DriftDifference.from_dict(d) for d in differences],
        _strings(content.get("backends")),
    )


def _phase(content: dict[str, Any]) -> PhaseResults | None:
    summaries = [PhaseSummary.from_dict(c) for c in items(content.get("codecs"), "codecs")]
    found = content.get("correlation")
    correlation = Correlation.from_dict(found) if found else None
    return PhaseResults(summaries, correlation) if summaries else None


def _telephone(content: dict[str, Any]) -> TelephoneResults | None:
    found = [TelephoneCurve.from_dict(c) for c in items(content.get("curves"), "curves")]
    curves = [curve for curve in found if curve.points]
    return TelephoneResults(curves, _strings(content.get("backends"))) if curves else None


def _strings(content: Any) -> dict[str, str]:
    return {name: text(value) for name, value in mapping(content, "backends").items()}


def _cells(folder: Path) -> list[Path]:
    """Return the folders of the trainings, in the order of the trainings."""
    cells = folder / "cells"
    found = list(cells.iterdir()) if cells.is_dir() else []
    histories = {cell: cell / "history.jsonl" for cell in found}
    times = {cell: h.stat().st_mtime if h.is_file() else 0.0 for cell, h in histories.items()}
    in_order = sorted(found, key=lambda cell: (times[cell], cell.name))
    return [cell for cell in in_order if cell.is_dir() and not cell.is_symlink()]


def _histories(folder: Path) -> dict[str, list[dict[str, float]]]:
    folders = {"": folder} | {clean_text(display_name(c.name)): c for c in _cells(folder)}
    found = {name: _history(path / "history.jsonl") for name, path in folders.items()}
    return {name: rows for name, rows in found.items() if rows}


def _history(path: Path) -> list[dict[str, float]]:
    """Read the rows that have a step and at least one more finite value."""
    if not path.is_file():
        return []
    try:
        check_size(path)
        rows = [clean(row) for row in read_history(path)]
    except (ValueError, RecursionError) as error:
        raise damaged(path, error) from error
    known = [
        {k: float(v) for k, v in row.items() if isinstance(v, int | float) and math.isfinite(v)}
        for row in rows
        if isinstance(row, dict)
    ]
    return [row for row in known if "step" in row and len(row) > 1]


def _documents(folder: Path, drift_at: Path, phase_at: Path) -> dict[str, dict[str, Any]]:
    """Read settings, versions and hashes of a run, of its cells and of its result files."""
    paths = {"settings.json": folder / "settings.json"}
    for cell in _cells(folder):
        name = f"cells/{clean_text(display_name(cell.name))}/settings.json"
        paths[name] = cell / "settings.json"
    found = {name: parse_json(path, lambda content: content) for name, path in paths.items()}
    others = (drift_at / "drift.json", phase_at / "phase.json", folder / "telephone/telephone.json")
    found |= {path.name: parse_json(path, _provenance) for path in others}
    return {name: content for name, content in found.items() if content}


def _provenance(content: dict[str, Any]) -> dict[str, Any]:
    """Settings, versions, backends and codec specs of a result file."""
    kept = {k: content[k] for k in ("settings", "versions", "backends") if content.get(k)}
    specs = [c["spec"] for c in items(content.get("codecs"), "codecs") if c.get("spec")]
    return kept | ({"codecs": specs} if specs else {})
