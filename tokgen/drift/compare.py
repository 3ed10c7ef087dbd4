"""Several codecs on the same clips: drift, phase sensitivity, files, plots and the table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tokgen.codec.base import Codec, WaveformCodec
from tokgen.drift.passes import DriftClips, DriftRun, measure_drift
from tokgen.drift.phase import Correlation, PhaseSummary, correlate, phase_sensitivity
from tokgen.drift.summary import (
    BACKENDS,
    Difference,
    DriftSummary,
    difference_lines,
    differences,
    summarise,
    table,
    write_csv,
)
from tokgen.runs.folder import versions, write_json


@dataclass(frozen=True)
class DriftComparison:
    """What `compare_drift` measured.

    Attributes:
        drifts: one a codec.
        runs: the same clip by clip, without codes.
        differences: of each codec from the first, paired over clips.
        phases: one a codec with codes; empty unless asked for.
        correlation: of the two over codecs.
    """

    drifts: list[DriftSummary]
    runs: list[DriftRun]
    differences: list[Difference]
    phases: list[PhaseSummary]
    correlation: Correlation | None

    def table(self) -> str:
        """Plain text."""
        lines = [table(self.drifts), *difference_lines(self.differences)]
        if self.correlation is not None:
            lines.append("match under shifts, mean over shifts and levels:")
            lines += [f"  {p.name}: {p.mean_match}" for p in self.phases]
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
        codecs: with names that differ.
        clips: the same for all, resampled to each one's rate.
        out: folder of the results; the same call again goes on after a kill.
        passes: encodings, 2 or more.
        match_level: bring each output to its original's level.
        phase: measure sensitivity to shifts too; writes phase.json and phase.png.
        n_samples: clips that are written as audio.
        progress: show bars.
    Raises:
        ValueError: no codec, equal names, passes under 2, no usable clip, or `phase` where none has
            codes.
    """
    from tokgen.drift.plots import plot_drift, plot_phase

    names = [codec.spec.name for codec in codecs]
    if not names or len(set(names)) < len(names):
        raise ValueError(f"codecs {names}: give at least one, and each once")
    if passes < 2:
        raise ValueError(f"passes = {passes}: give at least 2, to see any drift")
    if phase and not any(isinstance(codec, Codec) for codec in codecs):
        raise ValueError(f"codecs {names}: none has codes, whose match under shifts could be told")
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
        runs.append(run.without_codes())
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
        "differences": [asdict(d) for d in pairs],
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
