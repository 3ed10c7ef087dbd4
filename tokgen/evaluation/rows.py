"""Score rows of audio, or a codec on a corpus, as a table with intervals."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokgen.audio.files import read_audio
from tokgen.codec.base import Codec
from tokgen.corpus.entries import Rejection
from tokgen.corpus.listed import Corpus, as_corpus
from tokgen.evaluation.metric import METRICS, check_backends, parse_metrics
from tokgen.evaluation.pool import ScoringPool
from tokgen.evaluation.scorer import Scorer, score_clips
from tokgen.evaluation.settings import DEFAULT_METRICS
from tokgen.metrics.codebook import codebook_use
from tokgen.metrics.statistics import bootstrap_ratio
from tokgen.metrics.tables import KINDS, Row, Table
from tokgen.results import Grid, Result, finite
from tokgen.runs.progress import progress_bar
from tokgen.zoo.lookup import as_codec

__all__ = ["CodecScores", "Scores", "score_audio", "score_codec"]


@dataclass(frozen=True)
class Scores(Result):
    """Scores of rows of audio.

    Attributes:
        means: means with intervals of every row and metric.
        per_clip: one record per row and clip, with values and transcript; NaN if a metric failed.
    """

    means: Table
    per_clip: list[dict[str, Any]]

    def parts(self) -> list[Grid | str]:
        return self.means.parts()

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each row and metric."""
        return self.means.records()

    def to_dict(self) -> dict[str, Any]:
        """Return the means as in metrics.json, and the records of clips."""
        return finite({"rows": self.means.rows_as_dict(), "clips": self.per_clip})


def score_audio(
    rows: Mapping[str, Sequence[Tensor]],
    *,
    sample_rate: int,
    reference: str = "original",
    texts: Sequence[str | None] | None = None,
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    asr: str = "auto",
    mos: str = "auto",
    mos_reference: Tensor | None = None,
    speaker: str = "auto",
    workers: int | None = None,
    progress: bool = True,
) -> Scores:
    """Score rows of audio that hold the same utterances.

    Args:
        rows: row name to waveforms [1, N], the same utterances in the same order in each row.
        sample_rate: sample rate of all audio in Hz.
        reference: the row that PESQ and SI-SDR compare with. Its own PESQ is the ceiling of
            the metric; its own SI-SDR is infinite and counts as failed.
        texts: transcript of each utterance; None if there are none. CER counts an utterance as
            failed if its transcript is None or has no letters.
        metrics: names of `tokgen.evaluation.metric.METRICS`, also in one string with commas.
        asr, mos, mos_reference: as in `tokgen.evaluation.scorer.Scorer`.
        speaker: its `speaker_encoder`.
        workers: processes that score, as in `tokgen.evaluation.pool.ScoringPool`.
    Raises:
        ValueError: unknown metric or row, or rows of unequal length.
    """
    metrics = parse_metrics(metrics)
    if reference not in rows:
        raise ValueError(f"reference row {reference!r}: rows are {', '.join(rows)}")
    if texts is None:
        texts = [None] * len(rows[reference])
    lengths = {name: len(clips) for name, clips in rows.items()} | {"texts": len(texts)}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"rows of unequal length {lengths}: each needs the same utterances")
    scorer = Scorer(
        metrics,
        asr=asr,
        mos=mos,
        speaker_encoder=speaker,
        mos_reference=mos_reference,
        sample_rate=sample_rate,
    )
    found, per_clip = [], []
    total = len(rows) * len(texts)
    with (
        ScoringPool(scorer, workers) as pool,
        progress_bar("scoring", total=total, unit="clip", show=progress) as bar,
    ):
        for name, clips in rows.items():
            records = score_clips(pool, name, clips, rows[reference], texts, sample_rate, bar=bar)
            values = {m: bootstrap_ratio(*METRICS[m].columns(records)) for m in metrics}
            found.append(Row(name, name if name in KINDS else "generated", None, values))
            per_clip += records
    columns = [replace(METRICS[m], digits=3, backend=scorer.backends[m]) for m in metrics]
    notes = ["means with 95 % bootstrap intervals over clips"]
    return Scores(Table(columns, found, notes=notes), per_clip)


@dataclass(frozen=True)
class CodecScores(Result):
    """Scores of a codec on a corpus.

    Attributes:
        codec: `CodecSpec.as_dict()` of the codec.
        corpus: name of the corpus.
        scores: rows "original" and "resynthesis".
        codebook_use: percent per level, pooled over `n_frames` frames.
        n_frames: frames behind `codebook_use`. Entropy is biased low if there are few.
        seconds: seconds of audio.
        speed: seconds of audio encoded and decoded, clip by clip, per second of computing.
        rejections: clips that could not be read.
    """

    codec: dict[str, Any]
    corpus: str
    scores: Scores
    codebook_use: list[float]
    n_frames: int
    seconds: float
    speed: float
    rejections: list[Rejection]

    def parts(self) -> list[Grid | str]:
        use = " ".join(f"{u:.1f}" for u in self.codebook_use)
        return [
            *self.scores.parts(),
            f"codebook use, % of log2(size), {self.n_frames} frames: {use}",
            f"encode + decode, clip by clip: {self.speed:.0f} x real time ({self.seconds:.0f} s)",
            *(f"left out {rejection}" for rejection in self.rejections),
        ]

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each row and metric."""
        return self.scores.records()

    def to_dict(self) -> dict[str, Any]:
        """Return all but the records of clips, with the scores as in metrics.json."""
        rejections = [asdict(rejection) for rejection in self.rejections]
        scores = self.scores.means.rows_as_dict()
        return finite(vars(self) | {"scores": scores, "rejections": rejections})


def score_codec(
    codec: str | Path | Codec,
    corpus: str | Path | Corpus,
    *,
    split: str | None = None,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    asr: str = "auto",
    mos: str = "auto",
    mos_reference: str | Path | Tensor | None = None,
    speaker: str = "auto",
    workers: int | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
) -> CodecScores:
    """Encode and decode every clip once and score it against the original.

    Args:
        codec: the codec, or its name as in `load_codec`.
        corpus: the corpus, or its source as in `open_corpus`. All clips are held in memory.
        split, min_seconds, max_seconds: part of the corpus to score, as in `open_corpus`.
        metrics, asr, mos, speaker, workers: as in `score_audio`.
        mos_reference: clean speech for SQUIM, not a clip of the corpus: an audio file, or [1, N] at
            the codec's rate.
        device: device to load a codec on that is given by name.
    Raises:
        ValueError: no clip of the corpus can be read, or an unknown metric or device.
        FileNotFoundError: no such codec, corpus or file.
    """
    metrics = parse_metrics(metrics)
    check_backends(asr=asr, mos=mos, speaker=speaker)
    codec = as_codec(codec, device=device)
    corpus = as_corpus(corpus, split=split, min_seconds=min_seconds, max_seconds=max_seconds)
    rate = codec.spec.sample_rate
    if isinstance(mos_reference, str | Path):
        mos_reference, _ = read_audio(mos_reference, sample_rate=rate)
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
    scores = score_audio(
        {"original": originals, "resynthesis": decoded},
        sample_rate=rate,
        texts=[c.text for c in clips],
        metrics=metrics,
        asr=asr,
        mos=mos,
        mos_reference=mos_reference,
        speaker=speaker,
        workers=workers,
        progress=progress,
    )
    use = codebook_use(codes, codec.spec.codebook_size)
    n_frames = sum(c.shape[-1] for c in codes)
    return CodecScores(
        codec.spec.as_dict(),
        corpus.name,
        scores,
        use.tolist(),
        n_frames,
        seconds,
        seconds / took,
        rejected,
    )
