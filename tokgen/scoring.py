"""One clip -> its metrics, and rows of clips -> records that survive a kill.

A metric that fails is NaN in the record, never a score. What each metric is called, which way is
better and who computed it stands beside (`METRICS`, `Scorer.backends`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from tokgen.clip_store import RecordStore, hash_audio
from tokgen.metrics import pesq, pitch, si_sdr, speaker
from tokgen.metrics.cer import Recogniser, RecognitionError, edits, make_recogniser
from tokgen.metrics.mos import make_mos
from tokgen.metrics.statistics import Direction
from tokgen.metrics.text import normalise_text


@dataclass(frozen=True)
class Metric:
    """How a metric is shown.

    Attributes:
        name: in records, files and settings.
        label: in tables.
        better: "higher", "lower", or None where neither is.
        unit: of the value, "" for a pure number.
        digits: behind the point.
        ratio: where it is pooled over clips: the record's fields for numerator and denominator.
        detail: it goes into a table of its own.
    """

    name: str
    label: str
    better: Direction | None
    unit: str = ""
    digits: int = 2
    ratio: tuple[str, str] | None = None
    detail: bool = False

    def columns(self, records: Sequence[Mapping[str, Any]]) -> tuple[list[float], list[float]]:
        """Numerators and denominators over clips; the denominators of a mean are 1."""
        above, under = self.ratio or (self.name, "")
        numerators = [r[above] for r in records]
        return numerators, [r[under] for r in records] if under else [1.0] * len(records)


METRICS = {
    metric.name: metric
    for metric in (
        Metric("mos", "MOS", "higher"),
        Metric("pesq", "PESQ", "higher"),
        Metric("cer", "CER", "lower", digits=3, ratio=("edits", "chars")),
        Metric("si_sdr", "SI-SDR", "higher", "dB", 1),
        Metric("speaker", "speaker similarity", "higher", digits=3),
        Metric("f0", "F0 error", "lower", "cents", 0),
        Metric("voicing", "voicing error", "lower", digits=3),
    )
}
DEFAULT_METRICS = ("cer", "mos", "pesq", "si_sdr")


def check_metrics(metrics: Sequence[str]) -> None:
    """Refuse names that are not in `METRICS`, and such as come twice."""
    if len(set(metrics)) < len(metrics):
        raise ValueError(f"metrics {list(metrics)}: give each once")
    unknown = sorted(set(metrics) - set(METRICS))
    if unknown:
        raise ValueError(f"metrics {unknown}: known are {', '.join(sorted(METRICS))}")


class Scorer:
    """Scores clips with a choice of metrics; models are loaded once.

    Args:
        metrics: names of `METRICS`.
        asr: backend of CER (`tokgen.metrics.cer.make_recogniser`).
        mos: backend of MOS (`tokgen.metrics.mos.make_mos`).
        speaker_encoder: backend of speaker similarity
            (`tokgen.metrics.speaker.make_speaker_encoder`).
        mos_reference: clean speech [1, N] for SQUIM, none of the scored clips.
        sample_rate: of `mos_reference`, Hz.
    Attributes:
        backends: metric -> who computes it.
    Raises:
        ValueError: unknown metric.
    """

    def __init__(
        self,
        metrics: Sequence[str] = DEFAULT_METRICS,
        *,
        asr: str = "auto",
        mos: str = "auto",
        speaker_encoder: str = "auto",
        mos_reference: Tensor | None = None,
        sample_rate: int = 16000,
    ) -> None:
        check_metrics(metrics)
        self.metrics = tuple(metrics)
        self._recogniser = make_recogniser(asr) if "cer" in metrics else None
        self._mos = make_mos(mos, mos_reference, sample_rate) if "mos" in metrics else None
        self._speaker = (
            speaker.make_speaker_encoder(speaker_encoder) if "speaker" in metrics else None
        )
        backends = {
            "cer": self._recogniser.backend if self._recogniser else "",
            "mos": self._mos.backend if self._mos else "",
            "pesq": pesq.BACKEND,
            "si_sdr": si_sdr.BACKEND,
            "speaker": self._speaker.backend if self._speaker else "",
            "f0": pitch.BACKEND,
            "voicing": pitch.BACKEND,
        }
        self.backends = {name: backends[name] for name in self.metrics}
        self._of_reference = lru_cache(maxsize=256)(self._describe)

    def score(
        self, clip: Tensor, reference: Tensor, text: str | None, sample_rate: int
    ) -> dict[str, Any]:
        """The record of one clip.

        Args:
            clip, reference: waveforms [1, N] of equal length.
            text: transcript; without letters there is no CER.
            sample_rate: Hz.
        Returns:
            metric -> value, NaN where it failed; CER as "edits", "chars" and "transcript".
        """
        record: dict[str, Any] = {}
        if self._recogniser:
            record |= _cer_of(self._recogniser, clip, sample_rate, text)
        if self._mos:
            record["mos"] = self._mos.score(clip, sample_rate)
        if "pesq" in self.metrics:
            record["pesq"] = pesq.pesq_wb(reference, clip, sample_rate)
        if "si_sdr" in self.metrics:
            record["si_sdr"] = si_sdr.si_sdr(reference, clip)
        if {"speaker", "f0", "voicing"} & set(self.metrics):
            ours = self._describe(clip, sample_rate)
            theirs = self._of_reference(reference, sample_rate)
            if "speaker" in self.metrics:
                record["speaker"] = speaker.speaker_similarity(theirs[0], ours[0])
            if {"f0", "voicing"} & set(self.metrics):
                errors = pitch.pitch_errors(theirs[1], ours[1])
                record |= {"f0": errors.f0_rmse_cents, "voicing": errors.voicing_error}
        return record

    def _describe(self, clip: Tensor, sample_rate: int) -> tuple[Any, Any]:
        """Speaker embedding and pitch track, each None where it is not asked for."""
        embedding = self._speaker.embed(clip, sample_rate) if self._speaker else None
        wanted = {"f0", "voicing"} & set(self.metrics)
        return embedding, pitch.track_pitch(clip, sample_rate) if wanted else None


def score_clips(
    scorer: Scorer,
    name: str,
    clips: Sequence[Tensor],
    references: Sequence[Tensor],
    texts: Sequence[str | None],
    sample_rate: int,
    *,
    out: Path | None = None,
    bar: tqdm | None = None,
) -> list[dict[str, Any]]:
    """One record a clip: row, clip, text and the scores.

    Args:
        scorer: what scores.
        name: of the row.
        clips, references: waveforms [1, N], in the same order.
        texts: transcripts.
        sample_rate: of all audio, Hz.
        out: folder where records are kept as they come, so that the same call goes on after a
            kill; they are found again under the same audio, texts and backends.
        bar: is moved on by each clip.
    """
    store = None
    if out is not None:
        plan = [scorer.backends, hash_audio([*clips, *references]), list(texts), sample_rate]
        store = RecordStore(out, name, plan)
    records: list[dict[str, Any]] = list(store.records[: len(clips)]) if store else []
    if bar is not None:
        bar.update(len(records))
    for i in range(len(records), len(clips)):
        record = {"row": name, "clip": i, "text": texts[i]}
        record |= scorer.score(clips[i], references[i], texts[i], sample_rate)
        records.append(record)
        if store:
            store.append(record)
        if bar is not None:
            bar.update()
    return records


def _cer_of(
    recogniser: Recogniser, clip: Tensor, sample_rate: int, text: str | None
) -> dict[str, Any]:
    """Transcript, edits and reference characters; NaN where the clip or the text is unusable."""
    try:
        heard = recogniser.transcribe(clip, sample_rate)
    except RecognitionError:
        return {"transcript": None, "edits": math.nan, "chars": math.nan}
    if text is None or not normalise_text(text):
        return {"transcript": heard, "edits": math.nan, "chars": math.nan}
    found = edits(text, heard)
    return {"transcript": heard, "edits": found.n_edits, "chars": found.n_chars}
