"""Score rows of audio, as a table with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from torch import Tensor

from tokgen.evaluation.anchors import speaker_anchors
from tokgen.evaluation.clips import score_clips
from tokgen.evaluation.differences import row_differences
from tokgen.evaluation.fad import RowDistances
from tokgen.evaluation.metric import (
    LIMITS,
    METRICS,
    OF_ROWS,
    OF_TEXT,
    check_backends,
    parse_metrics,
)
from tokgen.evaluation.per_clip import clip_values
from tokgen.evaluation.pool import ScoringPool, check_workers
from tokgen.evaluation.reasons import failures_of, join, notes_on, warn_of_high_cer, why_no_text
from tokgen.evaluation.scorer import Scorer
from tokgen.evaluation.settings import DEFAULT_METRICS, check_cap
from tokgen.metrics.asr.names import languages_of
from tokgen.metrics.statistics import NO_LIMITS, bootstrap_ratio
from tokgen.metrics.tables import KINDS, Row, Table
from tokgen.results import Grid, Result, finite
from tokgen.runs.progress import progress_bar
from tokgen.runs.workers import one_thread

__all__ = ["AudioRow", "Scores", "make_scorer", "score_audio", "score_rows"]


@dataclass(frozen=True)
class Scores(Result):
    """Scores of rows of audio.

    Attributes:
        means: means with intervals of every row and metric, failures and notes.
        per_clip: one record per row and clip, with values and transcript. A value is NaN if the
            metric failed or does not apply; the reason is in "failures" or "not_applicable".
    """

    means: Table
    per_clip: list[dict[str, Any]]

    def parts(self) -> list[Grid | str]:
        return self.means.parts()

    def records(self) -> list[dict[str, Any]]:
        """Return one record for each row and metric."""
        return self.means.records()

    def clip_values(self) -> list[dict[str, Any]]:
        """Return one record for each clip, row and metric (`tokgen.evaluation.per_clip`)."""
        codecs = {row.name: row.codec for row in self.means.rows}
        return clip_values(self.per_clip, [m.name for m in self.means.metrics], codecs)

    def to_dict(self) -> dict[str, Any]:
        """Return means, notes and failures as in metrics.json, and the records of clips."""
        return finite(
            {
                "rows": self.means.rows_as_dict(),
                "notes": self.means.notes,
                "failures": self.means.failures_as_dict(),
                "clips": self.per_clip,
            }
        )


@dataclass(frozen=True)
class AudioRow:
    """A row of audio to score.

    Attributes:
        name, kind, codec: as in `tokgen.metrics.tables.Row`.
        clips, references: waveforms [1, N] or [C, N], in the same order in every row.
        sample_rate: Hz.
        lost: numbers of clips without audio, with the reason. All their metrics fail.
    """

    name: str
    kind: str
    codec: str | None
    clips: Sequence[Tensor]
    references: Sequence[Tensor]
    sample_rate: int
    lost: Mapping[int, str] = field(default_factory=dict)


def score_audio(
    rows: Mapping[str, Sequence[Tensor]],
    *,
    sample_rate: int,
    reference: str = "original",
    texts: Sequence[str | None] | None = None,
    ids: Sequence[str] | None = None,
    language: str | Sequence[str | None] | None = None,
    speakers: Sequence[str | None] | None = None,
    metrics: str | Sequence[str] = DEFAULT_METRICS,
    asr: str = "auto",
    cer_cap: float | None = None,
    mos: str = "auto",
    mos_reference: Tensor | None = None,
    speaker: str = "auto",
    utmos: str = "auto",
    fad: str = "clap",
    workers: int | None = None,
    progress: bool = True,
) -> Scores:
    """Score rows of audio that hold the same utterances.

    Args:
        rows: row name to waveforms [1, N], or [C, N] for stereo (see
            `tokgen.evaluation.scorer.Clip`), the same utterances in the same order in each row.
        sample_rate: sample rate of all audio in Hz.
        reference: the row that PESQ, SI-SDR and others compare with. Its own PESQ is the ceiling of
            the metric; its own SI-SDR is infinite, which does not apply.
        texts: transcript of each utterance; None if there are none. CER does not apply to an
            utterance whose transcript is None or has no letters.
        ids: ids of the utterances, to name them in failures; None for their numbers.
        language: language of all utterances or of each, as code or name; None if it is unknown. CER
            does not apply if the recogniser does not know the language.
        speakers: speaker of each utterance, for the anchors of speaker similarity; None if there
            are none.
        metrics: names of `tokgen.evaluation.metric.METRICS`, also in one string with commas.
        asr, cer_cap, mos, mos_reference, utmos, fad: as in `tokgen.evaluation.scorer.Scorer`. No
            recogniser is loaded if CER applies to no utterance.
        speaker: its `speaker_encoder`.
        workers: processes that score, as in `tokgen.evaluation.pool.ScoringPool`.
    Raises:
        ValueError: unknown metric, backend or row, or rows of unequal length.
    """
    metrics = parse_metrics(metrics)
    check_backends(asr=asr, mos=mos, speaker=speaker, fad=fad)
    check_cap(cer_cap)
    check_workers(workers)
    if reference not in rows:
        raise ValueError(f"reference row {reference!r}: rows are {', '.join(rows)}")
    n = len(rows[reference])
    texts = [None] * n if texts is None else texts
    languages = [language] * n if language is None or isinstance(language, str) else language
    lengths = {name: len(clips) for name, clips in rows.items()}
    lengths |= {"texts": len(texts), "language": len(languages)}
    lengths |= {} if ids is None else {"ids": len(ids)}
    lengths |= {} if speakers is None else {"speakers": len(speakers)}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"rows of unequal length {lengths}: each needs the same utterances")
    scorer = make_scorer(
        metrics, texts, languages, asr, mos, speaker, cer_cap=cer_cap, utmos=utmos, fad=fad,
        mos_reference=mos_reference, sample_rate=sample_rate,
        channels=max((len(w) for clips in rows.values() for w in clips if w.ndim == 2), default=1),
    )  # fmt: skip
    chosen = [
        AudioRow(
            name, name if name in KINDS else "generated", None, clips, rows[reference], sample_rate
        )
        for name, clips in rows.items()
    ]
    return score_rows(
        scorer, chosen, texts, languages, speakers, reference=reference, ids=ids, workers=workers,
        progress=progress,
    )  # fmt: skip


def make_scorer(
    metrics: Sequence[str],
    texts: Sequence[str | None],
    languages: Sequence[str | None],
    asr: str,
    mos: str,
    speaker: str,
    *,
    cer_cap: float | None = None,
    utmos: str = "auto",
    fad: str = "clap",
    mos_reference: Tensor | None,
    sample_rate: int,
    channels: int = 1,
) -> Scorer:
    """Make a scorer for utterances, without a recogniser if CER and WER apply to none of them.

    Args:
        metrics: names of metrics.
        texts, languages: transcript and language of each utterance.
        asr, mos, speaker, cer_cap, utmos, fad, mos_reference, sample_rate, channels: as in
            `Scorer`.
    """
    known = languages_of(asr)
    spoken = any(
        not why_no_text(metric, text, language, known)
        for text, language in zip(texts, languages, strict=True)
        for metric in OF_TEXT
        if metric in metrics
    )
    scorer = Scorer(
        metrics,
        asr=asr if spoken else None,
        cer_cap=cer_cap,
        mos=mos,
        speaker_encoder=speaker,
        utmos=utmos,
        fad=fad,
        mos_reference=mos_reference,
        sample_rate=sample_rate,
        channels=channels,
    )
    scorer.languages = scorer.languages or known
    return scorer


def score_rows(
    scorer: Scorer,
    rows: Sequence[AudioRow],
    texts: Sequence[str | None],
    languages: Sequence[str | None],
    speakers: Sequence[str | None] | None = None,
    *,
    reference: str,
    than: str | None = None,
    ids: Sequence[str] | None = None,
    workers: int | None = None,
    progress: bool = True,
) -> Scores:
    """Score rows that hold the same utterances, with means over clips.

    Args:
        texts, languages, speakers, ids: transcript, language, speaker and id of each utterance.
            Speakers give two rows more, the anchors of speaker similarity.
        reference: name of the row of originals. A high CER in it gives a warning.
        than: name of the row that later rows are compared with, clip by clip; None compares none.
        workers: as in `ScoringPool`.
    """
    found, records = [], {}
    distances = None if scorer.embedder is None else RowDistances(scorer.embedder)
    total = sum(len(row.clips) for row in rows)
    with (
        ScoringPool(scorer, workers) as pool,
        progress_bar("scoring", total=total, unit="clip", show=progress) as bar,
    ):
        for row in rows:
            of_row = score_clips(
                pool, row.name, row.clips, row.references, texts, row.sample_rate, ids=ids,
                languages=languages, lost=row.lost, bar=bar,
            )  # fmt: skip
            values = {}
            for name in scorer.metrics:
                if name in OF_ROWS and distances is not None:
                    about = row.clips, row.references, row.sample_rate, row.lost
                    values[name], why = distances.measure(*about)
                    of_row = [
                        join(record, {"failures": {name: why[i]}} if i in why else {})
                        for i, record in enumerate(of_row)
                    ]
                    continue
                applying = [r for r in of_row if METRICS[name].applies(r)]
                limits = LIMITS.get(name, NO_LIMITS)
                values[name] = bootstrap_ratio(*METRICS[name].columns(applying), limits=limits)
            found.append(Row(row.name, row.kind, row.codec, values))
            records[row.name] = of_row
    columns = [replace(METRICS[m], digits=3, backend=b) for m, b in scorer.backends.items()]
    several = len(texts) > 1
    notes = ["means with 95 % intervals over clips" if several else "values of one clip"]
    notes += notes_on(records)
    notes += [] if distances is None else distances.notes()
    original = next((row.values.get("cer") for row in found if row.name == reference), None)
    notes += warn_of_high_cer(original, scorer.languages)
    if "speaker" in scorer.metrics:
        originals = next(row for row in rows if row.name == reference)
        with one_thread():
            voices = [scorer.embed(clip, originals.sample_rate) for clip in originals.clips]
        anchors, more = speaker_anchors(voices, speakers or [None] * len(texts))
        found += anchors
        notes += more
    failures = [f for name, of_row in records.items() for f in failures_of(name, of_row)]
    per_clip = [record for of_row in records.values() for record in of_row]
    of_clips = [metric for metric in columns if metric.name not in OF_ROWS]
    names = [row.name for row in rows]
    compared = {} if than is None else {n: records[n] for n in names[names.index(than) :]}
    differences = row_differences(compared, of_clips, than or "")
    return Scores(Table(columns, found, differences, notes, failures), per_clip)
