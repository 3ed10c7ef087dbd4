"""Drift as means with intervals (Code Drift's Table I, Figures 1 and 2), as JSON, CSV and text."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from tokgen.drift.depths import PER_DEPTH, live_codes
from tokgen.drift.passes import PER_CLIP, PER_LEVEL, ClipDrift, DriftRun
from tokgen.metrics import pesq, si_sdr
from tokgen.metrics.codebook import use_with_interval
from tokgen.metrics.statistics import (
    NO_LIMITS,
    Estimate,
    Limits,
    bootstrap_mean,
    csv_fields,
    format_estimate,
)
from tokgen.results import Grid

__all__ = [
    "BACKENDS",
    "SHOWN_FAILURES",
    "DriftSummary",
    "Point",
    "summarise",
    "summary_parts",
    "write_csv",
]

SHOWN_FAILURES = 5  # lines of text for each codec; drift.json has all
BACKENDS = {
    "pesq": pesq.BACKEND,
    "si_sdr": si_sdr.BACKEND,
    "si_sdr_aligned": f"{si_sdr.BACKEND}, the codec's delay times the pass taken out",
    "log_mel": "tokgen (multi-scale log10 mel L1 of DAC, summed over 7 scales)",
    "level": "tokgen (RMS of a pass's output over the original's, dB, before levels are matched)",
    "match_previous": "tokgen (share of codes equal to the pass before)",
    "match_first": "tokgen (share of codes equal to the first pass)",
    "codebook_use": "tokgen (entropy in % of log2(size), pooled over clips)",
    "codebook_use_corrected": "tokgen (as codebook_use, Miller-Madow corrected for few frames)",
}
# of the values, and so of intervals around their means
_LIMITS: dict[str, Limits] = {"pesq": (1.04, 4.65), **dict.fromkeys(PER_LEVEL, (0.0, 1.0))}
_LIMITS |= dict.fromkeys(PER_DEPTH, (0.0, 1.0)) | {"kbps": NO_LIMITS}


@dataclass(frozen=True)
class Point:
    """An estimate of one metric after some passes.

    `level` is None for the mean over levels and for metrics without levels.
    """

    codec: str
    passes: int
    metric: str
    level: int | None
    estimate: Estimate


@dataclass(frozen=True)
class DriftSummary:
    """Summary of one codec.

    Attributes:
        name: name of the codec.
        spec: `CodecSpec.as_dict()` or `WaveformSpec.as_dict()`.
        bitrate: bits per second.
        delay: delay of one pass, as text.
        delay_samples: delay of one pass in samples.
        n_clips: number of clips.
        n_frames: frames per pass over all clips; 0 for a waveform codec.
        points: estimates.
        rejections: clips that were left out, with the reason.
        failures: "clip", "pass", "metric" and "reason" of each value that failed.
        conditions: how it was measured, as text; "" in files of older versions.
    """

    name: str
    spec: dict[str, Any]
    bitrate: float
    delay: str
    delay_samples: int
    n_clips: int
    n_frames: int
    points: list[Point]
    rejections: list[str]
    failures: list[dict[str, Any]] = field(default_factory=list)
    conditions: str = ""

    def at(self, metric: str, passes: int, level: int | None = None) -> Estimate:
        """Return the estimate of a metric after some passes.

        Raises:
            KeyError: it was not measured.
        """
        for p in self.points:
            if (p.metric, p.passes, p.level) == (metric, passes, level):
                return p.estimate
        raise KeyError(f"{self.name}: no {metric} after {passes} passes at level {level}")

    def curve(self, metric: str) -> list[tuple[int, Estimate]]:
        """Return (pass, estimate) of a metric, as the mean over levels if it has levels."""
        return [
            (p.passes, p.estimate)
            for p in self.points
            if p.metric == metric and p.level is None and p.estimate.n
        ]

    @property
    def n_passes(self) -> int:
        return max(p.passes for p in self.points)

    def as_dict(self) -> dict[str, Any]:
        """Return the JSON form."""
        points = [
            {"pass": p.passes, "metric": p.metric, "level": p.level, **p.estimate.as_dict()}
            for p in self.points
        ]
        return {**vars(self), "points": points}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> DriftSummary:
        """Read the JSON form. Absent or None values are NaN, 0 or empty.

        Raises:
            KeyError, TypeError, ValueError: the content is damaged.
        """
        name = str(content["name"])
        points = [
            Point(
                name,
                int(p["pass"]),
                str(p["metric"]),
                None if p.get("level") is None else int(p["level"]),
                Estimate.from_dict(p),
            )
            for p in content.get("points") or []
        ]
        return cls(
            name,
            dict(content.get("spec") or {}),
            float(content.get("bitrate") or math.nan),
            str(content.get("delay") or ""),
            int(content.get("delay_samples") or 0),
            int(content.get("n_clips") or 0),
            int(content.get("n_frames") or 0),
            points,
            [str(reason) for reason in content.get("rejections") or []],
            [
                {"clip": str(f["clip"]), "pass": int(f["pass"])}
                | {"metric": str(f["metric"]), "reason": str(f["reason"])}
                for f in content.get("failures") or []
            ],
            str(content.get("conditions") or ""),
        )

    def failure_lines(self) -> list[str]:
        """Say clip, metric, passes and reason of the failures, one line for equal reasons."""
        found: dict[tuple[str, str, str], list[int]] = {}
        for f in self.failures:
            found.setdefault((f["clip"], f["metric"], f["reason"]), []).append(f["pass"])
        return [
            f"{clip}, {metric}, {_passes(numbers)}: {reason}"
            for (clip, metric, reason), numbers in found.items()
        ]


def _passes(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return f"pass {numbers[0]}"
    if len(numbers) == numbers[-1] - numbers[0] + 1:
        return f"passes {numbers[0]} to {numbers[-1]}"
    return f"passes {', '.join(map(str, numbers))}"


def summarise(run: DriftRun) -> DriftSummary:
    """Return means over clips with 95 % bootstrap intervals for every pass and level."""
    points: list[Point] = []

    def add(passes: int, metric: str, estimates: Sequence[Estimate]) -> None:
        """Add the mean over levels, then each level."""
        for i, estimate in enumerate(estimates):
            points.append(Point(run.name, passes, metric, i - 1 if i else None, estimate))

    for metric in PER_CLIP:
        table = np.stack([clip.values[metric] for clip in run.clips])  # [clips, passes]
        for n in run.scored_passes:
            column = table[:, n - 1]
            limits = _LIMITS.get(metric, NO_LIMITS)
            add(n, metric, [bootstrap_mean(column[column != math.inf], limits=limits)])
    codes = [(c.codes, c.depth) for c in run.clips if c.codes is not None]
    if run.codebook_size is not None:
        sizes = run.spec.get("level_sizes") or run.codebook_size
        for metric in (m for m in (*PER_LEVEL, *PER_DEPTH) if m in run.clips[0].values):
            means = np.stack([clip.over_levels(metric) for clip in run.clips])  # [clips, passes]
            first = 1 if metric.endswith("previous") else 0  # no pass comes before pass 1
            for n in range(first, means.shape[1]):
                columns = [means[:, n].tolist(), *_by_level(run.clips, metric, n)]
                limits = _LIMITS[metric]
                add(n + 1, metric, [bootstrap_mean(column, limits=limits) for column in columns])
        for n in range(len(codes[0][0])):
            live = [live_codes(c[n], None if depth is None else depth[n]) for c, depth in codes]
            for metric, estimates in use_with_interval(live, sizes).items():
                add(n + 1, metric, estimates)
    return DriftSummary(
        run.name,
        run.spec,
        run.bitrate,
        str(run.delay),
        run.delay.samples,
        len(run.clips),
        sum(c.shape[-1] for c, _ in codes),
        points,
        [str(rejection) for rejection in run.rejections],
        [
            {"clip": clip_id, "pass": n, "metric": metric, "reason": reason}
            for clip_id, clip in zip(run.ids, run.clips, strict=True)
            for n, metric, reason in clip.failures
        ],
        run.conditions,
    )


def _by_level(clips: Sequence[ClipDrift], metric: str, n: int) -> list[list[float]]:
    """Return a match of each level after n + 1 passes, of the clips in which the level is live."""
    if metric not in PER_LEVEL:
        return []
    table = np.stack([clip.values[metric][n] for clip in clips])  # [clips, K]
    variable = clips[0].depth is not None
    columns = (column[~np.isnan(column)] if variable else column for column in table.T)
    return [column.tolist() for column in columns]


def write_csv(summaries: Sequence[DriftSummary], path: Path) -> None:
    """Write one line for each point: codec, pass, metric, level, mean, low, high, n, n_failed."""
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            ["codec", "pass", "metric", "level", "mean", "low", "high", "n", "n_failed"]
        )
        for p in (point for summary in summaries for point in summary.points):
            writer.writerow([p.codec, p.passes, p.metric, p.level, *csv_fields(p.estimate)])


def summary_parts(summaries: Sequence[DriftSummary]) -> list[Grid | str]:
    """Return Table I of Code Drift, with first and last pass side by side, and notes."""
    last = summaries[0].n_passes
    columns: tuple[tuple[str, str, int, int], ...] = (  # heading, metric, pass, digits
        ("PESQ @ 1", "pesq", 1, 2),
        (f"PESQ @ {last}", "pesq", last, 2),
        ("SI-SDR @ 1", "si_sdr_aligned", 1, 1),
        (f"SI-SDR @ {last}", "si_sdr_aligned", last, 1),
        (f"match {last - 1}-{last}" if last > 1 else "match", "match_previous", last, 2),
        (f"use @ {last}, %", "codebook_use", last, 1),
    )
    if any(p.metric == "kbps" for s in summaries for p in s.points):
        columns += (
            (f"depth {last - 1}-{last}", "depth_match_previous", last, 2),
            (f"kbps @ {last}", "kbps", last, 2),
        )
    rows = [["codec", "kHz", "kbps", *(heading for heading, *_ in columns)]]
    for s in summaries:
        rates = [f"{s.spec['sample_rate'] / 1000:g}", f"{s.bitrate / 1000:.3g}"]
        found = {(p.metric, p.passes): p.estimate for p in s.points if p.level is None}
        cells = [format_estimate(found.get((m, n)), digits) for _, m, n, digits in columns]
        rows.append([s.name, *rates, *cells])
    lines: list[Grid | str] = [Grid(rows)]
    several = any(s.n_clips > 1 for s in summaries)
    values = "means with 95 % bootstrap intervals over clips" if several else "values of one clip"
    lines.append(f"{values}; SI-SDR in dB, delay taken out")
    lines += list(dict.fromkeys(s.conditions for s in summaries if s.conditions))
    for s in summaries:
        counts = f"{len(s.failures)} values failed" if s.failures else "none failed"
        frames = f", {s.n_frames} frames per pass" if s.n_frames else ""
        clips = "1 clip" if s.n_clips == 1 else f"{s.n_clips} clips"
        lines.append(f"{s.name}: {clips}{frames}, {counts}; delay per pass {s.delay}")
        if "latent_dim" in s.spec:
            lines.append(f"{s.name}: kbps is that of float16 latents")
        lines += [f"  left out {r}" for r in s.rejections]
        failed = s.failure_lines()
        lines += [f"  failed {line}" for line in failed[:SHOWN_FAILURES]]
        if len(failed) > SHOWN_FAILURES:
            lines.append(f"  ... and {len(failed) - SHOWN_FAILURES} more, all in drift.json")
    lines += [f"{name}: {BACKENDS[name]}" for name in ("pesq", "si_sdr_aligned")]
    return lines
