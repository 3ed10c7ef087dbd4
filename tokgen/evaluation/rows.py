"""Score rows of audio, or a codec on a corpus, as a table with intervals."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from torch import Tensor
from tqdm import tqdm

from tokgen.codec.base import Codec
from tokgen.corpus.entries import Rejection
from tokgen.corpus.listed import Corpus
from tokgen.evaluation.metric import DEFAULT_METRICS, METRICS
from tokgen.evaluation.pool import ScoringPool
from tokgen.evaluation.scorer import Scorer, score_clips
from tokgen.metrics.codebook import codebook_use
from tokgen.metrics.statistics import bootstrap_ratio
from tokgen.metrics.tables import KINDS, Row, Table, to_text


@dataclass(frozen=True)
class Scores:
    """Scores of rows of audio.

    Attributes:
        table: means with intervals of every row and metric.
        per_clip: one record per row and clip, with values and transcript; NaN if a metric failed.
    """

    table: Table
    per_clip: list[dict[str, Any]]


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
        rows: row name to waveforms [1, N], the same utterances in the same order in each row.
        reference_row: the row that PESQ and SI-SDR compare with. Its own PESQ is the ceiling of
            the metric; its own SI-SDR is infinite and counts as failed.
        texts: transcript of each utterance. CER counts an utterance as failed if its transcript
            is None or has no letters.
        sample_rate: sample rate of all audio in Hz.
        metrics, asr, mos, mos_reference: as in `tokgen.evaluation.scorer.Scorer`.
        workers: processes that score, as in `tokgen.evaluation.pool.ScoringPool`.
    Raises:
        ValueError: unknown metric or row, or rows of unequal length.
    """
    if reference_row not in rows:
        raise ValueError(f"reference row {reference_row!r}: rows are {', '.join(rows)}")
    lengths = {name: len(clips) for name, clips in rows.items()} | {"texts": len(texts)}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"rows of unequal length {lengths}: each needs the same utterances")
    scorer = Scorer(metrics, asr=asr, mos=mos, mos_reference=mos_reference, sample_rate=sample_rate)
    found, per_clip = [], []
    total = len(rows) * len(texts)
    with (
        ScoringPool(scorer, workers) as pool,
        tqdm(total=total, unit="clip", desc="scoring", disable=not progress) as bar,
    ):
        for name, clips in rows.items():
            references = rows[reference_row]
            records = score_clips(pool, name, clips, references, texts, sample_rate, bar=bar)
            values = {m: bootstrap_ratio(*METRICS[m].columns(records)) for m in metrics}
            found.append(Row(name, name if name in KINDS else "generated", None, values))
            per_clip += records
    columns = [replace(METRICS[m], digits=3, backend=scorer.backends[m]) for m in metrics]
    notes = ["means with 95 % bootstrap intervals over clips"]
    return Scores(Table(columns, found, notes=notes), per_clip)


@dataclass(frozen=True)
class CodecScores:
    """Scores of a codec on a corpus.

    Attributes:
        scores: rows "original" and "resynthesis".
        codebook_use: percent per level, pooled over `n_frames` frames.
        n_frames: frames behind `codebook_use`. Entropy is biased low if there are few.
        seconds: seconds of audio.
        speed: seconds of audio encoded and decoded, clip by clip, per second of computing.
        rejections: clips that could not be read.
    """

    scores: Scores
    codebook_use: list[float]
    n_frames: int
    seconds: float
    speed: float
    rejections: list[Rejection]

    def as_dict(self) -> dict[str, Any]:
        """Return a JSON form, with the scores as in metrics.json."""
        rejections = [asdict(rejection) for rejection in self.rejections]
        return vars(self) | {"scores": self.scores.table.rows_as_dict(), "rejections": rejections}

    def to_text(self) -> str:
        """Format scores, codebook use and speed for a terminal."""
        use = " ".join(f"{u:.1f}" for u in self.codebook_use)
        lines = [
            to_text(self.scores.table),
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
    """Encode and decode every clip once and score it against the original.

    Args:
        codec: the codec to score.
        corpus: the clips, all held in memory.
        metrics, asr, mos, workers: as in `score_rows`.
        mos_reference: clean speech [1, N] for SQUIM at the codec's rate, not a clip of the corpus.
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
