"""Table, curves and plot of `rate_distortion`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench_rate import rate_at
from tokgen.metrics import pesq, si_sdr
from tokgen.metrics.failures import Failure
from tokgen.metrics.statistics import (
    Estimate,
    bootstrap_mean,
    bootstrap_ratio,
    judge,
    paired_crossed,
)
from tokgen.metrics.tables import Difference, Metric, Row, Table
from tokgen.plotting import draw_band, new_figure, save_figure

Record = dict[str, Any]  # of a clip: "id", "points" of each system, "failures"
MEL = "tokgen (multi-scale log10 mel L1 of DAC, summed over 7 scales)"
METRICS = (
    Metric("pesq", "PESQ", "higher", digits=3, backend=pesq.BACKEND),
    Metric("si_sdr", "SI-SDR", "higher", "dB", backend=si_sdr.BACKEND),
    Metric("mel", "mel distance", "lower", digits=3, backend=MEL),
    Metric("mos", "MOS", "higher", digits=3),
)
KBPS = Metric("kbps", "real bitrate", None, "kbps", digits=3)
DEPTH = Metric("depth", "of it, depth", None, "kbps", digits=3)
SAVED = Metric("saved", "bits that variable saves at equal PESQ", None, "%", digits=1)
WAYS = {
    "variable": "variable",
    "energy": "by energy",
    "constant": "constant",
    "other": "constant",
}


def make_curves(records: Sequence[Record], names: Mapping[str, str]) -> dict[str, list[Any]]:
    """Return the means of each system at each bitrate or number of levels, by label."""
    curves = {}
    for system, name in names.items():
        rows = [[clip["points"][system][i] for clip in records] for i in _places(records, system)]
        curves[f"{name}, {WAYS[system]}"] = [
            {key: row[0][key] for key in ("asked", "levels") if key in row[0]}
            | {m: bootstrap_mean([p.get(m, math.nan) for p in row]).as_dict() for m in _keys(row)}
            for row in rows
        ]
    return curves


def _places(records: Sequence[Record], system: str) -> range:
    return range(len(records[0]["points"][system]))


def _keys(row: Sequence[Record]) -> list[str]:
    """Return the measured values of points."""
    known = {key for point in row for key in point}
    return [m.name for m in (KBPS, DEPTH, *METRICS) if m.name in known]


def make_table(
    records: Sequence[Record],
    names: Mapping[str, str],
    kbps: Sequence[float],
    clips: str,
    backends: Mapping[str, str],
) -> Table:
    """Return the scores of the systems at some kbps, and paired differences from variable.

    Args:
        names: name of the codec of each system.
        clips: what was measured, for a note.
        backends: of metrics that have none in `METRICS`.
    """
    measured = set(_keys([p for r in records for ps in r["points"].values() for p in ps]))
    metrics = [m for m in METRICS if m.name in measured]
    rows, differences, notes = [], [], [clips, *NOTES, *by_pauses(records, kbps)]
    for rate in kbps:
        values = {
            (system, m.name): [at_kbps(r["points"][system], rate, m.name) for r in records]
            for system in names
            for m in (*metrics, KBPS, DEPTH)
        }
        labels = {
            system: f"{name}, {WAYS[system]}, {rate:g} kbps" for system, name in names.items()
        }
        for system, name in names.items():
            found = {
                m.name: bootstrap_mean(values[system, m.name]) for m in (KBPS, DEPTH, *metrics)
            }
            if system != "variable":
                found["saved"], places = bits_saved(records, system, rate)
                if places:
                    notes.append(f"{labels[system]}: {places}")
            rows.append(Row(labels[system], "resynthesis", name, found))
        for system in list(names)[1:]:
            for m in metrics:
                assert m.better is not None
                pair = ([values[s, m.name]] for s in (system, "variable"))
                gain = paired_crossed(*pair)
                verdict = judge(gain, better=m.better)
                differences.append(
                    Difference(labels["variable"], labels[system], m.name, gain, None, verdict)
                )
    failures = [Failure(r["id"], *failure) for r in records for failure in r["failures"]]
    shown = [
        Metric(**{**vars(m), "backend": m.backend or backends.get(m.name, "")})
        for m in (KBPS, DEPTH, *metrics, SAVED)
    ]
    return Table(shown, rows, differences, notes, failures)


NOTES = (
    "bitrates count codes without entropy coding and the depth with adaptive coding",
    "scores of constant bitrates are interpolated linearly for each clip between numbers of levels",
    "bits saved: kbps of variable against those at which the line through a clip's points of the "
    "other system first reaches its PESQ",
)


def by_pauses(records: Sequence[Record], kbps: Sequence[float]) -> Iterator[str]:
    """Say what variable gains in PESQ over constant in three groups of clips, by their pauses."""
    ordered = sorted(records, key=lambda record: record["quiet"])
    groups = [[ordered[i] for i in part] for part in np.array_split(range(len(ordered)), 3)]
    for rate in kbps if len(ordered) >= 3 else ():
        said = []
        for group in groups:
            gains = [
                at_kbps(r["points"]["variable"], rate, "pesq")
                - at_kbps(r["points"]["constant"], rate, "pesq")
                for r in group
            ]
            gain, ends = bootstrap_mean(gains), [group[i]["quiet"] for i in (0, -1)]
            said.append(
                f"{gain.mean:+.3f} [{gain.low:+.3f}, {gain.high:+.3f}] in {len(group)} clips with "
                f"{ends[0]:.0%} to {ends[1]:.0%} of quiet frames"
            )
        yield f"PESQ of variable minus constant at {rate:g} kbps: {'; '.join(said)}"


def at_kbps(points: Sequence[Record], kbps: float, metric: str) -> float:
    """Return a metric of a clip at some kbps: the point that was asked, or between two levels."""
    if "asked" in points[0]:
        asked = [p for p in points if math.isclose(p["asked"], kbps, rel_tol=1e-5)]
        return asked[0].get(metric, math.nan)
    rates = [p["kbps"] for p in points]
    if not rates[0] * (1 - 1e-9) <= kbps <= rates[-1] * (1 + 1e-9):
        return math.nan
    return float(np.interp(kbps, rates, [p.get(metric, math.nan) for p in points]))


def bits_saved(records: Sequence[Record], system: str, kbps: float) -> tuple[Estimate, str]:
    """Estimate the bits in % that variable saves at equal PESQ, and say which clips are at an end.

    It is 100 * (theirs - ours) / theirs, with sums over clips.
    """
    saved, theirs, places = [], [], {"low": 0, "high": 0}
    for r in records:
        own, quality = (at_kbps(r["points"]["variable"], kbps, m) for m in ("kbps", "pesq"))
        scores = {p["kbps"]: p["pesq"] for p in r["points"][system] if "pesq" in p}
        found, place = rate_at(quality, sorted(scores), scores.__getitem__)
        saved.append(100 * (found - own))
        theirs.append(found)
        if place in places:
            places[place] += 1
    n = len(records)
    said = [f"{places['low']} of {n} clips exceed this PESQ at the lowest point"] * (
        places["low"] > 0
    )
    said += [f"{places['high']} of {n} clips do not reach it"] * (places["high"] > 0)
    return bootstrap_ratio(saved, theirs), "; ".join(said)


def plot_rates(curves: Mapping[str, Sequence[Record]], path: Path) -> None:
    """Plot each metric against real kbps, with 95 % intervals over clips."""
    measured = {key for curve in curves.values() for point in curve for key in point}
    metrics = [m for m in METRICS if m.name in measured]
    figure = new_figure(4 * len(metrics), 3.8)
    panels = figure.subplots(1, len(metrics), squeeze=False)[0]
    for axes, metric in zip(panels, metrics, strict=True):
        for i, (label, curve) in enumerate(curves.items()):
            points = list(_known(curve, metric.name))
            draw_band(axes, [x for x, _ in points], [e for _, e in points], i, label)
        axes.set(title=metric.heading, xlabel="kbps, with the bits of the depth")
        axes.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=min(4, len(labels)))
    save_figure(figure, path)


def _known(curve: Sequence[Record], metric: str) -> Iterator[tuple[float, Estimate]]:
    """Yield the mean kbps and the estimate of the points that have both."""
    for point in curve:
        kbps, estimate = (Estimate.from_dict(point.get(key) or {}) for key in ("kbps", metric))
        if math.isfinite(kbps.mean) and math.isfinite(estimate.mean):
            yield kbps.mean, estimate
