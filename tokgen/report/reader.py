"""Run folders -> dataclasses. Whatever a folder holds is read; nothing in it is trusted."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokgen.audio.files import display_name
from tokgen.drift.phase import Correlation, PhaseSummary
from tokgen.drift.summary import Difference, DriftSummary
from tokgen.evaluation import metric as scoring
from tokgen.metrics.statistics import Estimate, estimate_from_dict
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

KNOWN = (
    *("table.json", "metrics.json", "history.jsonl", "samples/index.json", "settings.json"),
    *("drift.json", "phase.json", "drift/drift.json", "drift/phase.json"),
    "telephone/telephone.json",
)
KINDS = ("original", "resynthesis", "generated")


@dataclass(frozen=True)
class Metric:
    """A column of the summary table; `better` is "higher", "lower" or "".

    `detail` puts it into a table of its own, folded away.
    """

    name: str
    label: str
    better: str
    unit: str
    backend: str
    digits: int
    detail: bool = False


@dataclass(frozen=True)
class Row:
    """A row of the summary table; `kind` is one of KINDS, `codec` "" where there is none."""

    name: str
    kind: str
    codec: str
    values: dict[str, Estimate]


@dataclass(frozen=True)
class TableDifference:
    """A paired difference row - than; `margin` NaN where none was set."""

    row: str
    than: str
    metric: str
    estimate: Estimate
    margin: float
    verdict: str


@dataclass(frozen=True)
class Table:
    """What was measured."""

    metrics: list[Metric]
    rows: list[Row]
    differences: list[TableDifference]
    notes: list[str]


@dataclass(frozen=True)
class Drift:
    """A drift run: one summary a codec, and what stands beside them."""

    summaries: list[DriftSummary]
    differences: list[Difference]
    backends: dict[str, str]


@dataclass(frozen=True)
class Phase:
    """Sensitivity to shifts."""

    summaries: list[PhaseSummary]
    correlation: Correlation | None


@dataclass(frozen=True)
class TelephoneCurve:
    """A codec's metric over edit rounds."""

    codec: str
    metric: str
    label: str
    points: list[tuple[int, Estimate]]


@dataclass(frozen=True)
class Telephone:
    """The token telephone."""

    curves: list[TelephoneCurve]
    backends: dict[str, str]


@dataclass(frozen=True)
class Run:
    """What a run folder holds; None or empty where it holds nothing of a kind.

    Attributes:
        name: of the folder.
        histories: of trainings: "" for the run itself, else the cell's name.
        documents: settings, hashes and versions as JSON: title -> content.
    """

    name: str
    table: Table | None
    drift: Drift | None
    phase: Phase | None
    telephone: Telephone | None
    histories: dict[str, list[dict[str, float]]]
    listenings: list[Listening]
    documents: dict[str, dict[str, Any]]


def read_run(folder: Path, n_clips: int = 12) -> Run:
    """Read what a folder holds.

    Args:
        folder: of a run.
        n_clips: utterances to take, the first so many.
    Raises:
        ValueError: no folder, no run, nothing to show, or a damaged file.
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
        table = parse_json(folder / "metrics.json", _simple_table)
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
    metrics = [
        Metric(
            text(m["name"]),
            text(m.get("label")) or text(m["name"]),
            text(m.get("better")),
            text(m.get("unit")),
            text(m.get("backend")),
            _digits(m.get("digits")),
            m.get("detail") is True,
        )
        for m in (mapping(m, "metrics") for m in items(content.get("metrics"), "metrics"))
    ]
    rows = [
        Row(text(r["name"]), _kind(r.get("kind"), ""), text(r.get("codec")), _values(r["values"]))
        for r in (mapping(r, "rows") for r in items(content.get("rows"), "rows"))
    ]
    differences = [
        TableDifference(
            text(d["row"]),
            text(d["than"]),
            text(d["metric"]),
            _estimate(d),
            number(d.get("margin")),
            text(d.get("verdict")),
        )
        for d in (mapping(d, "differences") for d in items(content.get("differences"), "…"))
    ]
    notes = [text(note) for note in items(content.get("notes"), "notes")]
    return Table(metrics, _by_kind(rows), differences, notes) if metrics and rows else None


def _simple_table(content: dict[str, Any]) -> Table | None:
    found = mapping(content.get("rows"), "rows")
    if not found:
        return None
    codec = text(content.get("codec"))
    rows = [
        Row(name, _kind(None, name), "" if name == "original" else codec, _values(values))
        for name, values in found.items()
    ]
    backends: dict[str, str] = {}
    for values in found.values():
        for name, value in values.items():
            backends.setdefault(name, text(value.get("backend")))
    metrics = []
    for name, backend in backends.items():
        known = scoring.METRICS.get(name, scoring.Metric(name, name, None, digits=3))
        metrics.append(
            Metric(name, known.label, known.better or "", known.unit, backend, known.digits)
        )
    return Table(metrics, _by_kind(rows), [], [])


def _values(content: Any) -> dict[str, Estimate]:
    return {name: _estimate(mapping(v, name)) for name, v in mapping(content, "values").items()}


def _estimate(content: Mapping[str, Any]) -> Estimate:
    for key in ("mean", "low", "high", "n", "n_failed"):
        number(content.get(key))
    return estimate_from_dict(content)


def _digits(value: Any) -> int:
    return 2 if value is None else min(6, max(0, int(number(value))))


def _kind(value: Any, name: str) -> str:
    found = text(value) or name
    return found if found in KINDS else "generated"


def _by_kind(rows: list[Row]) -> list[Row]:
    return sorted(rows, key=lambda row: KINDS.index(row.kind))


def _drift(content: dict[str, Any]) -> Drift | None:
    found = [DriftSummary.from_dict(c) for c in items(content.get("codecs"), "codecs")]
    summaries = [s for s in found if s.points]
    if not summaries:
        return None
    return Drift(
        summaries,
        [Difference.from_dict(d) for d in items(content.get("differences"), "differences")],
        _strings(content.get("backends")),
    )


def _phase(content: dict[str, Any]) -> Phase | None:
    summaries = [PhaseSummary.from_dict(c) for c in items(content.get("codecs"), "codecs")]
    found = content.get("correlation")
    correlation = Correlation.from_dict(found) if found else None
    return Phase(summaries, correlation) if summaries else None


def _telephone(content: dict[str, Any]) -> Telephone | None:
    curves = [
        TelephoneCurve(
            text(c["codec"]),
            text(c["metric"]),
            text(c.get("label")) or text(c["metric"]),
            [
                (int(number(p["round"])), _estimate(p))
                for p in (mapping(p, "points") for p in items(c.get("points"), "points"))
            ],
        )
        for c in (mapping(c, "curves") for c in items(content.get("curves"), "curves"))
    ]
    known = [c for c in curves if c.points]
    return Telephone(known, _strings(content.get("backends"))) if known else None


def _strings(content: Any) -> dict[str, str]:
    return {name: text(value) for name, value in mapping(content, "backends").items()}


def _cells(folder: Path) -> list[Path]:
    cells = folder / "cells"
    found = sorted(cells.iterdir(), key=_when) if cells.is_dir() else []
    return [cell for cell in found if cell.is_dir() and not cell.is_symlink()]


def _when(cell: Path) -> tuple[float, str]:
    """Cells stand in the order of their trainings."""
    history = cell / "history.jsonl"
    return history.stat().st_mtime if history.is_file() else 0.0, cell.name


def _histories(folder: Path) -> dict[str, list[dict[str, float]]]:
    places = {"": folder} | {clean_text(display_name(c.name)): c for c in _cells(folder)}
    found = {name: _history(place / "history.jsonl") for name, place in places.items()}
    return {name: rows for name, rows in found.items() if rows}


def _history(path: Path) -> list[dict[str, float]]:
    """Rows with a step and at least one finite value."""
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
    """Settings, versions and hashes of a run, of its cells and of what it measured."""
    places = {"": folder / "settings.json"}
    places |= {
        f"cells/{clean_text(display_name(c.name))}": c / "settings.json" for c in _cells(folder)
    }
    found = {
        f"{name}/settings.json".lstrip("/"): parse_json(path, lambda content: content)
        for name, path in places.items()
    }
    others = (drift_at / "drift.json", phase_at / "phase.json", folder / "telephone/telephone.json")
    found |= {path.name: parse_json(path, _provenance) for path in others}
    return {name: content for name, content in found.items() if content}


def _provenance(content: dict[str, Any]) -> dict[str, Any]:
    """Settings, versions and the codecs' specs of a result file."""
    kept = {k: content[k] for k in ("settings", "versions", "backends") if content.get(k)}
    specs = [c["spec"] for c in items(content.get("codecs"), "codecs") if c.get("spec")]
    return kept | ({"codecs": specs} if specs else {})
