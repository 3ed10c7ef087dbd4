"""From clips through passes to means with intervals: the numbers of Code Drift's Table I and
Figures 1 and 2, as JSON, CSV and text.
"""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tokgen.drift.passes import PER_CLIP, PER_LEVEL, DriftRun
from tokgen.metrics import pesq, si_sdr
from tokgen.metrics.codebook import use_with_interval
from tokgen.metrics.statistics import (
    Estimate,
    bootstrap_mean,
    estimate_from_dict,
    paired_difference,
)

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


@dataclass(frozen=True)
class Point:
    """One number: a codec, a pass, a metric, and the level where there is one.

    `level` None is the mean over levels, or a metric that has none.
    """

    codec: str
    passes: int
    metric: str
    level: int | None
    estimate: Estimate


@dataclass(frozen=True)
class DriftSummary:
    """One codec's points, and what to know beside them."""

    name: str
    spec: dict[str, Any]
    bitrate: float
    delay: str
    delay_samples: int
    n_clips: int
    n_frames: int
    points: list[Point]
    rejections: list[str]

    def at(self, metric: str, passes: int, level: int | None = None) -> Estimate:
        """The estimate of a metric after some passes.

        Raises:
            KeyError: not measured.
        """
        for p in self.points:
            if (p.metric, p.passes, p.level) == (metric, passes, level):
                return p.estimate
        raise KeyError(f"{self.name}: no {metric} after {passes} passes at level {level}")

    def curve(self, metric: str) -> list[tuple[int, Estimate]]:
        """(pass, estimate) of a metric over passes, mean over levels where it has levels."""
        return [
            (p.passes, p.estimate)
            for p in self.points
            if p.metric == metric and p.level is None and p.estimate.n
        ]

    @property
    def n_passes(self) -> int:
        return max(p.passes for p in self.points)

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready; NaN becomes None."""
        rows = [
            {
                "pass": p.passes,
                "metric": p.metric,
                "level": p.level,
                **{k: _plain(v) for k, v in asdict(p.estimate).items()},
            }
            for p in self.points
        ]
        return {**vars(self), "points": rows}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> DriftSummary:
        """What `as_dict` gave, read back; what is absent or None is NaN, 0 or empty.

        Raises:
            KeyError, TypeError, ValueError: not what `as_dict` gives.
        """
        name = str(content["name"])
        points = [
            Point(
                name,
                int(p["pass"]),
                str(p["metric"]),
                None if p.get("level") is None else int(p["level"]),
                estimate_from_dict(p),
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
        )


def summarise(run: DriftRun) -> DriftSummary:
    """Means over clips with 95 % bootstrap intervals, for every pass and level."""
    points: list[Point] = []
    for metric in PER_CLIP:
        table = np.stack([clip.values[metric] for clip in run.clips])  # [clips, passes]
        points += [
            Point(run.name, n, metric, None, bootstrap_mean(column))
            for n, column in enumerate(table.T, 1)
        ]
    n_frames = 0
    if run.codebook_size is not None:
        for metric in PER_LEVEL:
            cube = np.stack([clip.values[metric] for clip in run.clips])  # [clips, passes, K]
            points += _matches(run.name, metric, cube)
        codes = [clip.codes for clip in run.clips if clip.codes is not None]
        n_frames = sum(c.shape[-1] for c in codes)
        for n in range(codes[0].shape[0]):
            points += _use(run.name, n + 1, [c[n] for c in codes], run.codebook_size)
    return DriftSummary(
        run.name,
        run.spec,
        run.bitrate,
        str(run.delay),
        run.delay.samples,
        len(run.clips),
        n_frames,
        points,
        [f"{r.source}: {r.reason}" for r in run.rejections],
    )


@dataclass(frozen=True)
class Difference:
    """How much higher a metric is for one codec than for another, over the clips of both."""

    codec: str
    than: str
    passes: int
    metric: str
    estimate: Estimate

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Difference:
        """`asdict` of a difference, read back.

        Raises:
            KeyError, TypeError, ValueError: not what `asdict` gives.
        """
        return cls(
            str(content["codec"]),
            str(content["than"]),
            int(content["passes"]),
            str(content["metric"]),
            estimate_from_dict(content["estimate"]),
        )


def differences(base: DriftRun, other: DriftRun) -> list[Difference]:
    """Paired over clips, after the first and the last pass, as many as both have.

    Match is compared where both have codes: the mean over levels, with the pass before.
    """
    shared = [i for i in other.ids if i in set(base.ids)]
    pairs = [
        (base.clips[base.ids.index(i)].values, other.clips[other.ids.index(i)].values)
        for i in shared
    ]
    if not pairs:
        return []
    last = min(len(values["pesq"]) for values in pairs[0])
    found = []
    for metric in ("pesq", "si_sdr_aligned", "match_previous"):
        if any(metric not in values for values in pairs[0]):
            continue
        for n in (1, last) if metric != "match_previous" else (last,):
            first, second = (
                [float(pair[k][metric][n - 1].mean()) for pair in pairs] for k in (0, 1)
            )
            estimate = paired_difference(first, second)
            found.append(Difference(other.name, base.name, n, metric, estimate))
    return found


def difference_lines(found: Sequence[Difference]) -> list[str]:
    """Plain text, a line a codec."""
    lines: dict[tuple[str, str], list[str]] = {}
    for d in found:
        text = f"{d.metric} @ {d.passes} {d.estimate.mean:+.3f}"
        text += f" [{d.estimate.low:+.3f}, {d.estimate.high:+.3f}]"
        lines.setdefault((d.codec, d.than), []).append(text)
    return [f"{codec} over {than}, paired: {', '.join(v)}" for (codec, than), v in lines.items()]


def _matches(name: str, metric: str, cube: np.ndarray) -> list[Point]:
    """[clips, passes, K] -> a point per pass and level, and their mean; no match before pass 2."""
    first = 1 if metric == "match_previous" else 0
    points = []
    for n in range(first, cube.shape[1]):
        columns = [(None, cube[:, n].mean(-1)), *enumerate(cube[:, n].T)]
        points += [Point(name, n + 1, metric, k, bootstrap_mean(column)) for k, column in columns]
    return points


def _use(name: str, passes: int, codes: Sequence[np.ndarray], size: int) -> list[Point]:
    """Codes [K, T_i] of the clips after a pass -> a point per level, and their mean."""
    found = use_with_interval(codes, size)
    points = []
    for metric, estimates in found.items():
        keys = [None, *range(len(estimates) - 1)]
        points += [Point(name, passes, metric, k, e) for k, e in zip(keys, estimates, strict=True)]
    return points


def write_csv(summaries: Sequence[DriftSummary], path: Path) -> None:
    """One line a point: codec, pass, metric, level, mean, low, high, n, n_failed."""
    with path.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["codec", "pass", "metric", "level", "mean", "low", "high", "n", "n_failed"])
        for summary in summaries:
            for p in summary.points:
                e = p.estimate
                level = "" if p.level is None else p.level
                numbers = ["" if math.isnan(v) else f"{v:.6g}" for v in (e.mean, e.low, e.high)]
                table.writerow([p.codec, p.passes, p.metric, level, *numbers, e.n, e.n_failed])


def table(summaries: Sequence[DriftSummary]) -> str:
    """Plain text in the form of Table I: first and last pass side by side."""
    last = summaries[0].n_passes
    header = (
        "codec", "kHz", "kbps", "PESQ @ 1", f"PESQ @ {last}", "SI-SDR @ 1", f"SI-SDR @ {last}",
        f"match {last - 1}-{last}" if last > 1 else "match", f"use @ {last}, %",
    )  # fmt: skip
    rows = [header]
    for s in summaries:
        rate, bitrate = s.spec["sample_rate"] / 1000, s.bitrate / 1000
        rows.append(
            (
                s.name, f"{rate:g}", f"{bitrate:.3g}",
                _cell(s, "pesq", 1), _cell(s, "pesq", last),
                _cell(s, "si_sdr_aligned", 1, 1), _cell(s, "si_sdr_aligned", last, 1),
                _cell(s, "match_previous", last), _cell(s, "codebook_use", last, 1),
            )
        )  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(header))]
    lines = [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
    lines.append("means with 95 % bootstrap intervals over clips; SI-SDR in dB, delay taken out")
    for s in summaries:
        failed = sorted({(p.metric, p.estimate.n_failed) for p in s.points if p.estimate.n_failed})
        counts = "; ".join(f"{metric}: {n} failed" for metric, n in failed) or "none failed"
        frames = f", {s.n_frames} frames a pass" if s.n_frames else ""
        lines.append(f"{s.name}: {s.n_clips} clips{frames}, {counts}; delay of a pass {s.delay}")
        lines += [f"  left out {r}" for r in s.rejections]
    lines += [f"{name}: {BACKENDS[name]}" for name in ("pesq", "si_sdr_aligned")]
    return "\n".join(lines)


def _cell(s: DriftSummary, metric: str, passes: int, digits: int = 2) -> str:
    try:
        e = s.at(metric, passes)
    except KeyError:
        return "-"
    if math.isnan(e.mean):
        return "-"
    spread = "" if math.isnan(e.low) else f" [{e.low:.{digits}f}, {e.high:.{digits}f}]"
    return f"{e.mean:.{digits}f}{spread}"


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value
