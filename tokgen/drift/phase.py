"""Measure how codes change when audio is shifted by less than a frame (Code Drift, Figure 3).

The paper correlates the mean match under shifts of up to 2 ms with PESQ after 25 passes, over
codecs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from tokgen.audio.files import AudioError
from tokgen.codec.base import Codec
from tokgen.codec.depth import OutOfReach
from tokgen.codec.identity import codes_key
from tokgen.drift.clips import DriftClips
from tokgen.drift.depths import live_match, match_over_levels, name_of, rate_plan
from tokgen.drift.summary import DriftSummary
from tokgen.metrics.statistics import Estimate, bootstrap_mean, format_estimate, pearson
from tokgen.runs.progress import progress_bar
from tokgen.runs.store import ClipStore

__all__ = [
    "REACH_MS",
    "STEP_MS",
    "Correlation",
    "PhaseSummary",
    "correlate",
    "phase_sensitivity",
    "shift_grid",
]

REACH_MS, STEP_MS = 2.0, 0.25  # largest shift in both directions, and step between shifts


@dataclass(frozen=True)
class PhaseSummary:
    """Match of one codec under shifts.

    Attributes:
        name: name of the codec.
        shifts: shifts in samples, ascending, without 0.
        shifts_ms: shifts in milliseconds.
        match: share of equal codes for each shift: mean over levels, then over clips. Of a
            variable bitrate, only codes that are live on both sides count, as in
            `tokgen.drift.depths`.
        mean_match: mean over all shifts and levels.
        level_match: mean over all shifts, for each level. A clip without live codes counts as
            failed.
        failures: clip and reason of each clip that failed.
    """

    name: str
    shifts: list[int]
    shifts_ms: list[float]
    match: list[Estimate]
    mean_match: Estimate
    level_match: list[Estimate]
    failures: list[tuple[str, str]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Return the content for a JSON file."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> PhaseSummary:
        """Read the content of a JSON file.

        Raises:
            KeyError, TypeError, ValueError: the content is damaged.
        """
        shifts_ms = [float(ms) for ms in content["shifts_ms"]]
        match = [Estimate.from_dict(e) for e in content["match"]]
        if len(match) != len(shifts_ms):
            raise ValueError(f"{len(match)} matches for {len(shifts_ms)} shifts")
        return cls(
            str(content["name"]),
            [int(shift) for shift in content.get("shifts") or []],
            shifts_ms,
            match,
            Estimate.from_dict(content.get("mean_match") or {}),
            [Estimate.from_dict(e) for e in content.get("level_match") or []],
            [(str(clip), str(reason)) for clip, reason in content.get("failures") or []],
        )


def phase_sensitivity(
    codec: Codec,
    clips: DriftClips,
    *,
    out: Path,
    progress: bool = True,
) -> PhaseSummary:
    """Measure the match between codes of audio and of the same audio shifted.

    The shifted excerpt has real audio at both ends; it is not padded with zeros.

    Args:
        clips: clips, cut by `REACH_MS` at both ends. A clip counts as failed if it cannot be read,
            is then shorter than a frame, or is out of reach of the codec's bitrate.
        out: folder whose subfolder clips keeps the results of clips. After a kill, the same call
            resumes.
    Raises:
        ValueError: all clips failed; the message has the first reasons.
    """
    rate = codec.spec.sample_rate
    shifts = shift_grid(rate)
    margin = max(shifts)
    name, plan = name_of(codec), [codes_key(codec), clips.fingerprint, shifts]
    store = ClipStore(out / "clips", f"{name}-phase", plan + rate_plan(codec))
    failed = np.full((len(shifts), codec.spec.n_codebooks), np.nan)
    rows, totals = [], []  # [shifts, K] and [shifts] per clip
    failures: list[tuple[str, str]] = []
    bar = progress_bar(f"phase {name}", total=len(clips), unit="clip", show=progress)
    with bar:
        for index, clip_id in enumerate(clips.ids()):
            arrays = store.read(index)
            if arrays is None:
                try:
                    audio = clips.load(index, rate)
                    if audio.shape[-1] - 2 * margin < codec.spec.hop_length:
                        raise AudioError(clip_id, "not longer than a frame and two shifts")
                    arrays = _matches(codec, audio, shifts)
                    store.write(index, arrays)
                except (AudioError, OutOfReach) as error:
                    reason = error.reason if isinstance(error, AudioError) else str(error)
                    failures.append((clip_id, reason))
                    arrays = {"match": failed}
            rows.append(arrays["match"])
            totals.append(arrays.get("total", arrays["match"].mean(-1)))
            bar.update()
    if all(np.isnan(row).all() for row in rows):
        reasons = "; ".join(f"{clip}: {reason}" for clip, reason in failures[:3])
        raise ValueError(f"no clip of {clips.corpus.name} has a match under shifts: {reasons}")
    cube, table = np.stack(rows), np.stack(totals)  # [clips, shifts, K] and [clips, shifts]
    by_level = np.ma.masked_invalid(cube).mean(1).filled(np.nan)
    mean = partial(bootstrap_mean, limits=(0.0, 1.0))
    return PhaseSummary(
        name,
        shifts,
        [1000 * s / rate for s in shifts],
        [mean(column) for column in table.T],
        mean(table.mean(1)),
        [mean(column) for column in by_level.T],
        failures,
    )


def shift_grid(sample_rate: int) -> list[int]:
    """Return the shifts in whole samples, in both directions and without 0."""
    steps = round(REACH_MS / STEP_MS)
    samples = {round(i * STEP_MS * sample_rate / 1000) for i in range(-steps, steps + 1)}
    return sorted(samples - {0})


def _matches(codec: Codec, audio: Tensor, shifts: list[int]) -> dict[str, np.ndarray]:
    """Return the "match" [shifts, K] of audio [1, N], which loses the largest shift at both ends.

    Of a variable bitrate, "total" [shifts] is the match of all levels together.
    """
    margin = max(shifts)
    n = audio.shape[-1] - 2 * margin

    def encode(start: int) -> tuple[Tensor, Tensor | None]:
        found = codec.encode_with_side(audio[None, :, start : start + n])
        return found.codes[0].cpu(), None if found.depth is None else found.depth[0].cpu()

    still, depth = encode(margin)
    moved = [encode(margin + s) for s in shifts]
    match = np.stack([live_match(still, c, depth, d).double().numpy() for c, d in moved])
    if depth is None:
        return {"match": match}
    depths = np.stack([depth, *(d for _, d in moved if d is not None)])
    every = np.concatenate([match[:1], match])  # match_over_levels compares with the first row
    return {"match": match, "total": match_over_levels(every, depths, first=True)[1:]}


@dataclass(frozen=True)
class Correlation:
    """Pearson correlation over codecs of mean match under shifts and PESQ after the last pass.

    Attributes:
        pairs: name, mean match and PESQ of each codec.
        passes: encodings of the drift run.
        r: correlation; NaN with fewer than 3 codecs.
        low, high: ends of the 95 % interval (Fisher's transform); NaN with fewer than 4 codecs.
    """

    pairs: list[tuple[str, float, float]]
    passes: int
    r: float
    low: float
    high: float

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Correlation:
        """Read the content of a JSON file, in which NaN is None.

        Raises:
            KeyError, TypeError, ValueError: the content is damaged.
        """
        r, low, high = (
            math.nan if content.get(k) is None else float(content[k]) for k in ("r", "low", "high")
        )
        pairs = [(str(name), float(match), float(pesq)) for name, match, pesq in content["pairs"]]
        return cls(pairs, int(content["passes"]), r, low, high)

    def __str__(self) -> str:
        n = len(self.pairs)
        if math.isnan(self.r):
            return f"n = {n} codecs: too few to correlate"
        r = format_estimate(Estimate(self.r, self.low, self.high, n, 0), 2)
        return f"r = {r}, n = {n} codecs"


def correlate(phases: Sequence[PhaseSummary], drifts: Sequence[DriftSummary]) -> Correlation:
    """Correlate match and PESQ of the codecs that are in both lists."""
    by_name = {d.name: d for d in drifts}
    last = drifts[0].n_passes
    pairs = [
        (p.name, p.mean_match.mean, by_name[p.name].at("pesq", last).mean)
        for p in phases
        if p.name in by_name and math.isfinite(by_name[p.name].at("pesq", last).mean)
    ]
    r, low, high = pearson([m for _, m, _ in pairs], [q for _, _, q in pairs])
    return Correlation(pairs, last, r, low, high)
