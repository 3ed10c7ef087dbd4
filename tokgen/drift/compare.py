"""Measure drift and phase sensitivity of codecs on the same clips, with files and plots.

drift = measure_drift(["speech-16k", "opus:12"], "speech/", "drift", passes=25)
print(drift)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch

from tokgen.codec.base import Codec, WaveformCodec
from tokgen.codec.stable.settings import StableDecoding
from tokgen.corpus.listed import Corpus, as_corpus
from tokgen.drift.chain import PLAIN, Treatment, check_treatment
from tokgen.drift.clips import CLIP_SECONDS, PAPER_CLIPS, PAPER_SECONDS, DriftClips, find_audio_rate
from tokgen.drift.depths import DEPTH_BACKENDS, name_of, rate_plan
from tokgen.drift.differences import DriftDifference, difference_lines, differences
from tokgen.drift.folder import claim_folder
from tokgen.drift.passes import DriftRun, check_scored, run_drift
from tokgen.drift.phase import Correlation, PhaseSummary, correlate, phase_sensitivity
from tokgen.drift.settings import check_protocol
from tokgen.drift.shifts import Shift, check_shift
from tokgen.drift.summary import (
    BACKENDS,
    DriftSummary,
    summarise,
    summary_parts,
    write_csv,
)
from tokgen.metrics.failures import SHOWN_CLIPS, SHOWN_REASONS
from tokgen.metrics.statistics import format_estimate
from tokgen.results import Grid, Result, finite
from tokgen.runs.checks import check_folder
from tokgen.runs.folder import versions, write_json
from tokgen.runs.locks import lock_folder
from tokgen.zoo.lookup import as_roundtrip

__all__ = ["AnyCodec", "DriftComparison", "measure_drift", "with_treatment"]

AnyCodec = str | Path | Codec | WaveformCodec


@dataclass(frozen=True)
class DriftComparison(Result):
    """Results of `measure_drift`.

    Attributes:
        drifts: summary of each codec.
        runs: values of each codec clip by clip, without codes.
        differences: paired differences of each codec from the first.
        phases: phase sensitivity of each codec that has codes; empty if not measured.
        correlation: correlation of match under shifts and PESQ; None if not measured.
        out: folder of the files.
    """

    drifts: list[DriftSummary]
    runs: list[DriftRun]
    differences: list[DriftDifference]
    phases: list[PhaseSummary]
    correlation: Correlation | None
    out: Path

    def parts(self) -> list[Grid | str]:
        lines = [*summary_parts(self.drifts), *difference_lines(self.differences)]
        if self.correlation is not None:
            lines.append("match under shifts, mean over shifts and levels:")
            for name, e in ((p.name, p.mean_match) for p in self.phases):
                failed = f", {e.n_failed} failed" if e.n_failed else ""
                lines.append(f"  {name}: {format_estimate(e, 3)} (n {e.n}{failed})")
            lines += _failure_lines(self.phases)
            lines.append(f"with PESQ @ {self.correlation.passes}: {self.correlation}")
        files = "drift.json, drift.csv, drift.png" + (", phase.*" if self.phases else "")
        return [*lines, f"{self.out}: {files}"]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each codec, pass, metric and level, as in drift.csv."""
        return [
            {"codec": p.codec, "pass": p.passes, "metric": p.metric, "level": p.level}
            | vars(p.estimate)
            for drift in self.drifts
            for p in drift.points
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return the content of drift.json and, if it was measured, of phase.json."""
        content: dict[str, Any] = {
            "codecs": [d.as_dict() for d in self.drifts],
            "differences": [d.as_dict() for d in self.differences],
        }
        if self.correlation is not None:
            phases = [p.as_dict() for p in self.phases]
            content["phase"] = {"codecs": phases, "correlation": vars(self.correlation)}
        return finite(content)


def measure_drift(
    codecs: AnyCodec | Sequence[AnyCodec],
    corpus: str | Path | Corpus,
    out: str | Path,
    *,
    split: str | None = None,
    where: str | None = None,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    language: str | None = None,
    follow_links: bool = False,
    protocol: Literal["first", "paper"] = "first",
    passes: int = 25,
    clip_seconds: float | None = None,
    clips: int | None = None,
    seed: int = 0,
    match_level: bool = True,
    shift: Shift = 0,
    stable: bool | StableDecoding = False,
    grid: Literal["auto"] | None = None,
    scored: Sequence[int] | None = None,
    phase: bool = False,
    samples: int = 2,
    device: str | torch.device = "auto",
    overwrite: bool = False,
    progress: bool = True,
) -> DriftComparison:
    """Measure how one or several codecs change the clips of a corpus under repeated encoding.

    Writes drift.json, drift.csv, drift.png and audio. The same call resumes after a kill, and adds
    what it measures beyond an earlier call with the same settings.

    Args:
        codecs: codecs, or names as in `load_roundtrip` (continuous codecs, "mp3:24" and "opus:12"
            too), each with another name. The others are compared with the first. MP3 runs at the
            rate of the corpus' first clip, if it has the bitrate there.
        corpus: the corpus, or its source as in `open_corpus`. Each codec gets its clips at its
            own rate.
        out: folder for the results.
        split, where, min_seconds, max_seconds: part of the corpus to measure, as in `open_corpus`.
        language, follow_links: as in `open_corpus`.
        protocol: "first" takes the first seconds of every clip, "paper" random excerpts (see
            `DriftClips.excerpts`).
        passes: number of encodings, at least 2.
        clip_seconds: length to cut clips to, 0 to keep them whole; None for 5, and for 1 with the
            protocol "paper".
        clips: number of clips, from the first on; None for all. With the protocol "paper", the
            number of excerpts; None for 500.
        seed: of excerpts and random shifts.
        match_level, shift, scored: as in `run_drift`.
        stable: also measure each codec with stable decoding, as a row of its own such as
            "speech-16k (stable)". Codecs that cannot decode stably have no such row.
        grid: "auto" also measures each codec with its frame grid found before each pass. With
            `stable` it is one row for both, "speech-16k (stable, grid)".
        phase: also measure sensitivity to shifts, and write phase.json and phase.png.
        samples: number of clips whose original, first and last pass are written as audio.
        device: device to load codecs on that are given by name.
        overwrite: remove the results of another measurement from the folder.
    Raises:
        ValueError: no codec, equal names, fewer than 2 passes, no usable clip, too little audio for
            the excerpts, a shift of whole frames, `phase` if no codec has codes, or `stable` or
            `grid` if no codec has them.
        FileNotFoundError: no such codec or corpus.
        FileExistsError: `out` holds another measurement; the message names what differs.
        BlockingIOError: another process measures in this folder.
        OSError: `out` cannot be written; this is checked first.
    """
    if passes < 2:
        raise ValueError(f"passes = {passes}: give at least 2 to measure drift")
    check_protocol(protocol, clip_seconds, match_level)
    check_shift(shift)
    scored = check_scored(scored, passes)
    out = Path(out)
    check_folder(out)
    corpus = as_corpus(
        corpus,
        split=split,
        where=where,
        min_seconds=min_seconds,
        max_seconds=max_seconds,
        language=language,
        follow_links=follow_links,
    )
    several = codecs if isinstance(codecs, Sequence) and not isinstance(codecs, str) else [codecs]
    rate = find_audio_rate(corpus)
    loaded = [as_roundtrip(codec, device=device, audio_rate=rate) for codec in several]
    names = [name_of(codec) for codec in loaded]
    if not names or len(set(names)) < len(names):
        raise ValueError(
            f"codecs {names}: give at least one, and each once; rename a folder if two are called "
            "the same"
        )
    if phase and not any(isinstance(codec, Codec) for codec in loaded):
        raise ValueError(f"codecs {names}: none has codes, which phase needs")
    decoding = StableDecoding() if stable is True else stable or None
    rows = with_treatment(loaded, Treatment(decoding, grid))
    if protocol == "paper":
        chosen = DriftClips.excerpts(
            corpus, clips or PAPER_CLIPS, clip_seconds or PAPER_SECONDS, seed
        )
    else:
        seconds = CLIP_SECONDS if clip_seconds is None else clip_seconds
        chosen = DriftClips(corpus, seconds or None, clips)
    settings = {
        "protocol": protocol,
        "corpus": corpus.name,
        "corpus_fingerprint": chosen.corpus.fingerprint,
        "clips": len(chosen),
        "clip_seconds": chosen.seconds,
        "passes": passes,
        "match_level": match_level,
        "shift": shift,
        "seed": seed if protocol == "paper" or shift == "random" else None,
        "scored": scored,
        "stable": None if decoding is None else asdict(decoding),
        "grid": grid,
    }
    variable = any(map(rate_plan, loaded))
    backends = BACKENDS | (DEPTH_BACKENDS if variable else {})
    about: dict[str, Any] = {"settings": settings, "versions": versions(), "backends": backends}
    specs = [
        {"name": how.name(name_of(codec)), "spec": codec.spec.as_dict()} for codec, how in rows
    ]
    with lock_folder(out):
        claim_folder(out, {**about, "codecs": specs}, overwrite=overwrite)
        drift = _measure_drift(rows, chosen, out, about, seed, samples, progress)
        return _add_phase(drift, loaded, chosen, about, progress) if phase else drift


def _failure_lines(phases: Sequence[PhaseSummary]) -> list[str]:
    """Return a line for each reason for which clips have no match under shifts."""
    reasons: dict[tuple[str, str], list[str]] = {}
    for phase in phases:
        for clip, reason in phase.failures:
            reasons.setdefault((phase.name, reason), []).append(clip)
    lines = []
    for (name, reason), clips in list(reasons.items())[:SHOWN_REASONS]:
        more = f" and {len(clips) - SHOWN_CLIPS} more" if len(clips) > SHOWN_CLIPS else ""
        lines.append(f"  failed in {name}: {', '.join(clips[:SHOWN_CLIPS])}{more}: {reason}")
    return lines


def with_treatment(
    codecs: Sequence[Codec | WaveformCodec], treatment: Treatment
) -> list[tuple[Codec | WaveformCodec, Treatment]]:
    """Return all codecs without a treatment, then those that have it, with it.

    Raises:
        ValueError: none has it.
    """
    rows: list[tuple[Codec | WaveformCodec, Treatment]] = [(codec, PLAIN) for codec in codecs]
    reasons = []
    for codec in codecs if treatment else ():
        try:
            check_treatment(codec, treatment)
        except ValueError as reason:
            reasons.append(str(reason))
        else:
            rows.append((codec, treatment))
    if treatment and len(rows) == len(codecs):
        raise ValueError("; ".join(reasons))
    return rows


def _measure_drift(
    rows: Sequence[tuple[Codec | WaveformCodec, Treatment]],
    clips: DriftClips,
    out: Path,
    about: dict[str, Any],
    seed: int,
    samples: int,
    progress: bool,
) -> DriftComparison:
    """Measure drift and write drift.json, drift.csv and drift.png."""
    from tokgen.drift.plots import plot_drift

    settings = about["settings"]
    runs, drifts = [], []
    for codec, treatment in rows:
        run = run_drift(
            codec,
            clips,
            out=out,
            treatment=treatment,
            seed=seed,
            n_samples=samples,
            **{key: settings[key] for key in ("passes", "match_level", "shift", "scored")},
            progress=progress,
        )
        drifts.append(summarise(run))
        runs.append(replace(run, clips=[replace(clip, codes=None) for clip in run.clips]))
    pairs = [d for run in runs[1:] for d in differences(runs[0], run)]
    content: dict[str, Any] = {
        "codecs": [d.as_dict() for d in drifts],
        "differences": [d.as_dict() for d in pairs],
    }
    write_json(out / "drift.json", {**about, **content})
    write_csv(drifts, out / "drift.csv")
    plot_drift(drifts, out / "drift.png")
    return DriftComparison(drifts, runs, pairs, [], None, out)


def _add_phase(
    drift: DriftComparison,
    codecs: Sequence[Codec | WaveformCodec],
    clips: DriftClips,
    about: dict[str, Any],
    progress: bool,
) -> DriftComparison:
    """Measure phase sensitivity and write phase.json and phase.png."""
    from tokgen.drift.plots import plot_phase

    phases = [
        phase_sensitivity(codec, clips, out=drift.out, progress=progress)
        for codec in codecs
        if isinstance(codec, Codec)
    ]
    correlation = correlate(phases, drift.drifts)
    content = {"codecs": [p.as_dict() for p in phases], "correlation": vars(correlation)}
    write_json(drift.out / "phase.json", {**about, **content})
    plot_phase(phases, correlation, drift.out / "phase.png")
    return replace(drift, phases=phases, correlation=correlation)
