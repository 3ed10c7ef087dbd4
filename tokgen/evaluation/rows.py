"""Rows of audio x metrics -> a table with intervals, n, failures and the backend of each metric."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from torch import Tensor
from tqdm import tqdm

from tokgen.codec.base import Codec
from tokgen.corpus.listed import Corpus, Rejection
from tokgen.evaluation.metric import DEFAULT_METRICS, METRICS
from tokgen.evaluation.pool import ScoringPool
from tokgen.evaluation.scorer import Scorer, score_clips
from tokgen.metrics.codebook import codebook_use
from tokgen.metrics.statistics import Estimate, bootstrap_ratio


@dataclass
class Scores:
    """What was measured.

    Attributes:
        rows: row -> metric -> estimate.
        backends: metric -> who computed it.
        per_clip: one record per row and clip: values, transcript, NaN where a metric failed.
    """

    rows: dict[str, dict[str, Estimate]]
    backends: dict[str, str]
    per_clip: list[dict[str, Any]] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """{row: {metric: {mean, low, high, n, n_failed, backend}}}; NaN becomes None (JSON)."""
        return {
            row: {
                metric: {k: _plain(v) for k, v in asdict(estimate).items()}
                | {"backend": self.backends[metric]}
                for metric, estimate in metrics.items()
            }
            for row, metrics in self.rows.items()
        }

    def table(self) -> str:
        """Plain text: one line a row, mean with interval a metric, backends underneath."""
        metrics = list(self.backends)
        width = max(len(row) for row in self.rows)
        lines = [" " * width + "".join(f"  {m.upper():>22}" for m in metrics)]
        for row, estimates in self.rows.items():
            cells = (_cell(estimates[m]) for m in metrics)
            lines.append(f"{row:<{width}}" + "".join(f"  {c:>22}" for c in cells))
        counts = {e.n for estimates in self.rows.values() for e in estimates.values()} - {0}
        n = " to ".join(str(x) for x in sorted({min(counts), max(counts)})) if counts else "0"
        lines.append(f"means with 95 % bootstrap intervals over clips, n = {n}")
        for row, estimates in self.rows.items():
            failed = [f"{m} {e.n_failed}" for m, e in estimates.items() if e.n_failed]
            if failed:
                lines.append(f"failed or not measurable in {row}: {', '.join(failed)}")
        lines += [f"{m.upper()}: {backend}" for m, backend in self.backends.items()]
        return "\n".join(lines)


def _cell(e: Estimate) -> str:
    return "-" if math.isnan(e.mean) else f"{e.mean:.3f} [{e.low:.3f}, {e.high:.3f}]"


def _plain(value: float) -> float | None:
    return value if math.isfinite(value) else None


def score_rows(
    rows: Mapping[str, Sequence[Tensor]],
    reference_row: str,
    texts: Sequence[str | None],
    sample_rate: int,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    asr: str = "auto",
    mos: str = "auto",
    mos_reference: Tensor | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Scores:
    """Score rows of audio that hold the same utterances.

    Args:
        rows: name -> waveforms [1, N], the same utterances in the same order in each row.
        reference_row: the row that PESQ and SI-SDR compare with; its own SI-SDR is infinite and
            left out, its PESQ is the metric's ceiling.
        texts: transcript of each utterance; those without letters have no CER and are counted
            as failed there.
        sample_rate: of all audio, Hz.
        metrics: names of `tokgen.evaluation.metric.METRICS`.
        asr: backend of CER (`tokgen.metrics.cer.make_recogniser`).
        mos: backend of MOS (`tokgen.metrics.mos.make_mos`).
        mos_reference: clean speech [1, N] for SQUIM, none of the scored clips.
        workers: processes that score (`tokgen.evaluation.pool`); None for one a core, 0 for none.
        progress: show a bar.
    Raises:
        ValueError: unknown metric or row, or rows of unequal length.
    """
    if reference_row not in rows:
        raise ValueError(f"reference row {reference_row!r}: rows are {', '.join(rows)}")
    lengths = {name: len(clips) for name, clips in rows.items()} | {"texts": len(texts)}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"rows of unequal length {lengths}: each needs the same utterances")
    scorer = Scorer(metrics, asr=asr, mos=mos, mos_reference=mos_reference, sample_rate=sample_rate)
    records = {}
    with (
        ScoringPool(scorer, workers) as pool,
        tqdm(
            total=len(rows) * len(texts), unit="clip", desc="scoring", disable=not progress
        ) as bar,
    ):
        for name, clips in rows.items():
            records[name] = score_clips(
                pool, name, clips, rows[reference_row], texts, sample_rate, bar=bar
            )
    return Scores(
        {
            name: {m: bootstrap_ratio(*METRICS[m].columns(row)) for m in metrics}
            for name, row in records.items()
        },
        scorer.backends,
        [record for row in records.values() for record in row],
    )


@dataclass
class CodecScores:
    """A codec on a corpus.

    Attributes:
        scores: rows "original" and "resynthesis".
        codebook_use: percent per level, pooled over `n_frames` frames.
        n_frames: frames behind `codebook_use`; entropy is biased low with few.
        seconds: of audio.
        speed: seconds of audio coded and decoded, clip by clip, per second of computing.
        rejections: clips that could not be read.
    """

    scores: Scores
    codebook_use: list[float]
    n_frames: int
    seconds: float
    speed: float
    rejections: list[Rejection]

    def as_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"scores": self.scores.as_dict()}

    def table(self) -> str:
        """Plain text: the scores, codebook use and speed."""
        use = " ".join(f"{u:.1f}" for u in self.codebook_use)
        lines = [
            self.scores.table(),
            f"codebook use, % of log2(size), {self.n_frames} frames: {use}",
            f"encode + decode, clip by clip: {self.speed:.0f} x real time ({self.seconds:.0f} s)",
        ]
        lines += [f"left out {r.source}: {r.reason}" for r in self.rejections]
        return "\n".join(lines)


def score_codec(
    codec: Codec,
    corpus: Corpus,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    asr: str = "auto",
    mos: str = "auto",
    mos_reference: Tensor | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> CodecScores:
    """One encoding and decoding of every clip against the original.

    Args:
        codec: what to score.
        corpus: its clips, all held in memory.
        metrics, asr, mos, workers, progress: as in `score_rows`.
        mos_reference: clean speech [1, N] for SQUIM at the codec's rate, no clip of the corpus.
    Raises:
        ValueError: no clip of the corpus can be read.
    """
    rate = codec.spec.sample_rate
    rejected: list[Rejection] = []
    clips = list(corpus.utterances(rate, rejected=rejected))
    if not clips:
        raise ValueError(f"no usable clip in {corpus.name}: {len(rejected)} rejected")
    originals = [c.waveform for c in clips]
    began = time.perf_counter()
    encoded = [codec.encode_with_side(w[None]) for w in originals]
    decoded = [
        codec.decode(e.codes, w.shape[-1], e.side)[0].cpu()
        for e, w in zip(encoded, originals, strict=True)
    ]
    took = time.perf_counter() - began
    codes = [e.codes[0].cpu() for e in encoded]
    seconds = sum(w.shape[-1] for w in originals) / rate
    scores = score_rows(
        {"original": originals, "resynthesis": decoded},
        "original",
        [c.text for c in clips],
        rate,
        metrics=metrics,
        asr=asr,
        mos=mos,
        mos_reference=mos_reference,
        workers=workers,
        progress=progress,
    )
    use = codebook_use(codes, codec.spec.codebook_size)
    n_frames = sum(c.shape[-1] for c in codes)
    return CodecScores(scores, use.tolist(), n_frames, seconds, seconds / took, rejected)
