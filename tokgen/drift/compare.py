"""Measure drift and phase sensitivity of several codecs on the same clips, with files and plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tokgen.codec.base import Codec, WaveformCodec
from tokgen.drift.passes import ClipDrift, DriftClips, DriftRun, measure_drift
from tokgen.drift.phase import Correlation, PhaseSummary, correlate, phase_sensitivity
from tokgen.drift.summary import (
    BACKENDS,
    DriftDifference,
    DriftSummary,
    difference_lines,
    differences,
    summarise,
    to_text,
    write_csv,
)
from tokgen.metrics.statistics import format_estimate
from tokgen.runs.folder import versions, write_json


@dataclass(frozen=True)
class DriftComparison:
    """Results of `compare_drift`.

    Attributes:
        drifts: summary of each codec.
        runs: values of each codec clip by clip, without codes.
        differences: paired differences of each codec from the first.
        phases: phase sensitivity of each codec that has codes; empty if not measured.
        correlation: correlation of match under shifts and PESQ; None if not measured.
    """

    drifts: list[DriftSummary]
    runs: list[DriftRun]
    differences: list[DriftDifference]
    phases: list[PhaseSummary]
    correlation: Correlation | None

    def to_text(self) -> str:
        """Format the results for a terminal."""
        lines = [to_text(self.drifts), *difference_lines(self.differences)]
        if self.correlation is not None:
            lines.append("match under shifts, mean over shifts and levels:")
            for name, e in ((p.name, p.mean_match) for p in self.phases):
                failed = f", {e.n_failed} failed" if e.n_failed else ""
                lines.append(f"  {name}: {format_estimate(e, 3)} (n {e.n}{failed})")
            lines.append(f"with PESQ @ {self.correlation.passes}: {self.correlation}")
        return "\n".join(lines)


def compare_drift(
    codecs: Sequence[Codec | WaveformCodec],
    clips: DriftClips,
    out: Path,
    *,
    passes: int = 25,
    match_level: bool = False,
    phase: bool = False,
    n_samples: int = 2,
    progress: bool = True,
) -> DriftComparison:
    """Measure codecs one after another and write drift.json, drift.csv, drift.png and audio.

    Args:
        codecs: codecs with different names.
        clips: clips, the same for all codecs and resampled to the rate of each.
        out, passes, match_level, n_samples: as in `measure_drift`, but at least 2 passes.
        phase: also measure sensitivity to shifts, and write phase.json and phase.png.
    Raises:
        ValueError: no codec, equal names, fewer than 2 passes, no usable clip, or `phase` if no
            codec has codes.
    """
    from tokgen.drift.plots import plot_drift, plot_phase

    names = [codec.spec.name for codec in codecs]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"codecs {names}: give at least one, and each once")
    if passes < 2:
        raise ValueError(f"passes = {passes}: give at least 2 to measure drift")
    if phase and not any(isinstance(codec, Codec) for codec in codecs):
        raise ValueError(f"codecs {names}: none has codes, which phase needs")
    runs, drifts = [], []
    for codec in codecs:
        run = measure_drift(
            codec,
            clips,
            out=out,
            passes=passes,
            match_level=match_level,
            n_samples=n_samples,
            progress=progress,
        )
        drifts.append(summarise(run))
        runs.append(replace(run, clips=[ClipDrift(clip.values, None) for clip in run.clips]))
    pairs = [d for run in runs[1:] for d in differences(runs[0], run)]
    settings = {
        "corpus": clips.corpus.name,
        "corpus_fingerprint": clips.corpus.fingerprint,
        "clip_seconds": clips.seconds,
        "passes": passes,
        "match_level": match_level,
    }
    about: dict[str, Any] = {"settings": settings, "versions": versions(), "backends": BACKENDS}
    content: dict[str, Any] = {
        "codecs": [d.as_dict() for d in drifts],
        "differences": [d.as_dict() for d in pairs],
    }
    write_json(out / "drift.json", {**about, **content})
    write_csv(drifts, out / "drift.csv")
    plot_drift(drifts, out / "drift.png")
    if not phase:
        return DriftComparison(drifts, runs, pairs, [], None)
    phases = [
        phase_sensitivity(codec, clips, out=out, progress=progress)
        for codec in codecs
        if isinstance(codec, Codec)
    ]
    correlation = correlate(phases, drifts)
    content = {"codecs": [p.as_dict() for p in phases], "correlation": vars(correlation)}
    write_json(out / "phase.json", {**about, **content})
    plot_phase(phases, correlation, out / "phase.png")
    return DriftComparison(drifts, runs, pairs, phases, correlation)
