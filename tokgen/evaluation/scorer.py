"""One clip -> its metrics, and rows of clips -> records that survive a kill.

A metric that fails is NaN in the record, never a score. What each metric is called, which way is
better and who computed it stands beside (`METRICS`, `Scorer.backends`). Many clips go faster
through processes: `tokgen.evaluation.pool`.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from tqdm import tqdm

from tokgen.evaluation.metric import DEFAULT_METRICS, check_metrics
from tokgen.metrics import pesq, pitch, si_sdr, speaker
from tokgen.metrics.cer import (
    Recogniser,
    RecognitionError,
    Wav2Vec2Recogniser,
    edits,
    make_recogniser,
)
from tokgen.metrics.mos import make_mos
from tokgen.metrics.text import normalise_text
from tokgen.runs.store import RecordStore, hash_audio
from tokgen.runs.workers import one_thread

REMEMBERED = 1000  # references whose speaker and pitch are kept, some kilobytes each
BATCH_SECONDS = 120  # of audio that a GPU is given at once


@dataclass(frozen=True)
class Clip:
    """What is scored.

    Attributes:
        audio, reference: waveforms [1, N] of equal length.
        text: transcript; without letters there is no CER.
        sample_rate: Hz.
    """

    audio: Tensor
    reference: Tensor
    text: str | None
    sample_rate: int


class ClipScorer(Protocol):
    """Gives a record for every clip: `Scorer`, or a `tokgen.evaluation.pool.ScoringPool` of one."""

    @property
    def backends(self) -> dict[str, str]:
        """Metric -> who computes it."""
        ...

    def score_all(self, clips: Iterable[Clip]) -> Iterator[dict[str, Any]]:
        """The records of clips, in their order, as they come."""
        ...


@runtime_checkable
class OnDevice(Protocol):
    """A judge that can compute on a GPU."""

    def to(self, device: str | torch.device) -> None:
        """Compute there."""
        ...


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
        device: of wav2vec2 and of MOS; None for a GPU where there is one.
    Attributes:
        backends: metric -> who computes it.
        batched: those of the metrics that a GPU computes, of clips of equal length at once.
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
        device: str | torch.device | None = None,
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
        place = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batched: tuple[str, ...] = ()
        if place.type != "cpu":
            judges = {"cer": self._recogniser, "mos": self._mos}
            movable = {n: judge for n, judge in judges.items() if isinstance(judge, OnDevice)}
            for judge in movable.values():
                judge.to(place)
            self.batched = tuple(movable)
        self._references: dict[str, tuple[Any, Any]] = {}

    def score(
        self,
        clip: Tensor,
        reference: Tensor,
        text: str | None,
        sample_rate: int,
        metrics: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """The record of one clip.

        Args:
            clip, reference: waveforms [1, N] of equal length.
            text: transcript; without letters there is no CER.
            sample_rate: Hz.
            metrics: those of the scorer's that are wanted; None for all.
        Returns:
            metric -> value, NaN where it failed; CER as "edits", "chars" and "transcript".
        """
        wanted = set(self.metrics if metrics is None else metrics)
        record: dict[str, Any] = {}
        if self._recogniser and "cer" in wanted:
            record |= _cer_of(_transcript(self._recogniser, clip, sample_rate), text)
        if self._mos and "mos" in wanted:
            record["mos"] = self._mos.score(clip, sample_rate)
        if "pesq" in wanted:
            record["pesq"] = pesq.pesq_wb(reference, clip, sample_rate)
        if "si_sdr" in wanted:
            record["si_sdr"] = si_sdr.si_sdr(reference, clip)
        if {"speaker", "f0", "voicing"} & wanted:
            ours = self._describe(clip, sample_rate)
            theirs = self._of_reference(reference, sample_rate)
            if "speaker" in wanted:
                record["speaker"] = speaker.speaker_similarity(theirs[0], ours[0])
            if {"f0", "voicing"} & wanted:
                errors = pitch.pitch_errors(theirs[1], ours[1])
                record |= {"f0": errors.f0_rmse_cents, "voicing": errors.voicing_error}
        return record

    def score_batch(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        """The part of each clip's record that `batched` computes."""
        records: list[dict[str, Any]] = [{} for _ in clips]
        for group in equal_lengths(clips):
            audio, rate = [clips[i].audio for i in group], clips[group[0]].sample_rate
            if isinstance(self._recogniser, Wav2Vec2Recogniser) and "cer" in self.batched:
                heard = self._recogniser.transcribe_batch(audio, rate)
                for i, transcript in zip(group, heard, strict=True):
                    records[i] |= _cer_of(transcript, clips[i].text)
            if self._mos and "mos" in self.batched:
                for i, value in zip(group, self._mos.score_batch(audio, rate), strict=True):
                    records[i]["mos"] = value
        return records

    def score_all(self, clips: Iterable[Clip]) -> Iterator[dict[str, Any]]:
        """The records of clips, one by one, with one thread of torch's: sums by several may round
        otherwise, and these are to be a pool's numbers."""
        rest = self.rest
        for clip in clips:
            with one_thread():
                [record] = self.score_batch([clip])
                record |= self.score(clip.audio, clip.reference, clip.text, clip.sample_rate, rest)
            yield record

    @property
    def rest(self) -> tuple[str, ...]:
        """The metrics that are not `batched`."""
        return tuple(n for n in self.metrics if n not in self.batched)

    def failed(self, text: str | None) -> dict[str, Any]:
        """The record of a clip that cannot be scored: every metric has failed."""
        record: dict[str, Any] = {name: math.nan for name in self.metrics if name != "cer"}
        return (_cer_of(None, text) if "cer" in self.metrics else {}) | record

    def _of_reference(self, reference: Tensor, sample_rate: int) -> tuple[Any, Any]:
        """`_describe`, remembered for the next rows: they come with the same references."""
        key = f"{hash_audio([reference])} {sample_rate}"
        if key not in self._references:
            if len(self._references) >= REMEMBERED:
                self._references.pop(next(iter(self._references)))
            self._references[key] = self._describe(reference, sample_rate)
        return self._references[key]

    def _describe(self, clip: Tensor, sample_rate: int) -> tuple[Any, Any]:
        """Speaker embedding and pitch track, each None where it is not asked for."""
        embedding = self._speaker.embed(clip, sample_rate) if self._speaker else None
        wanted = {"f0", "voicing"} & set(self.metrics)
        return embedding, pitch.track_pitch(clip, sample_rate) if wanted else None


def score_clips(
    scorer: ClipScorer,
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
        scorer: what scores: a `Scorer` in this process, a `ScoringPool` in several.
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
    left = range(len(records), len(clips))
    todo = (Clip(clips[i], references[i], texts[i], sample_rate) for i in left)
    for i, scores in zip(left, scorer.score_all(todo), strict=True):
        record = {"row": name, "clip": i, "text": texts[i], **scores}
        records.append(record)
        if store:
            store.append(record)
        if bar is not None:
            bar.update()
    return records


def equal_lengths(clips: Sequence[Clip]) -> Iterator[list[int]]:
    """Indices of clips of one length and rate, at most `BATCH_SECONDS` together."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, clip in enumerate(clips):
        groups.setdefault((clip.audio.shape[-1], clip.sample_rate), []).append(i)
    for (n_samples, rate), group in groups.items():
        size = max(1, int(BATCH_SECONDS * rate / max(1, n_samples)))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _transcript(recogniser: Recogniser, clip: Tensor, sample_rate: int) -> str | None:
    """What is heard; None where the clip is unusable."""
    try:
        return recogniser.transcribe(clip, sample_rate)
    except RecognitionError:
        return None


def _cer_of(heard: str | None, text: str | None) -> dict[str, Any]:
    """Transcript, edits and reference characters; NaN where the clip or the text is unusable."""
    if heard is None or text is None or not normalise_text(text):
        return {"transcript": heard, "edits": math.nan, "chars": math.nan}
    found = edits(text, heard)
    return {"transcript": heard, "edits": found.n_edits, "chars": found.n_chars}
