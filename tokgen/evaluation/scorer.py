"""Score clips. A metric that fails is NaN in the record, never a score."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from tokgen.evaluation.metric import check_metrics
from tokgen.evaluation.reasons import DIED, explain, join, why_no_cer
from tokgen.evaluation.settings import DEFAULT_METRICS, check_cap
from tokgen.extras import require
from tokgen.metrics import pesq, pitch, si_sdr, speaker
from tokgen.metrics.cer import RecognitionError, Wav2Vec2Recogniser, edits, make_recogniser
from tokgen.metrics.mos import MosPredictor, make_mos
from tokgen.metrics.signals import why_unusable
from tokgen.metrics.text import normalise_text
from tokgen.runs.progress import ProgressBar
from tokgen.runs.store import RecordStore, hash_audio
from tokgen.runs.workers import one_thread

__all__ = ["BATCH_SECONDS", "REMEMBERED", "Clip", "ClipScorer", "Scorer", "score_clips"]

REMEMBERED = 1000  # references whose speaker and pitch are kept, some kilobytes each
BATCH_SECONDS = 120  # seconds of audio per batch on a GPU


@dataclass(frozen=True)
class Clip:
    """A clip to score.

    Attributes:
        audio, reference: waveforms [1, N], or [C, N] for stereo, of equal length. SI-SDR compares
            all channels; the other metrics hear their mean.
        text: transcript. None if the clip has no CER.
        sample_rate: Hz.
    """

    audio: Tensor
    reference: Tensor
    text: str | None
    sample_rate: int


class ClipScorer(Protocol):
    """A `Scorer` or a `tokgen.evaluation.pool.ScoringPool`."""

    @property
    def backends(self) -> dict[str, str]: ...

    @property
    def languages(self) -> tuple[str, ...]: ...

    def score_all(self, clips: Iterable[Clip]) -> Iterator[dict[str, Any]]: ...


class Scorer:
    """Scores clips with the chosen metrics. Models are loaded once.

    Args:
        metrics: names in `METRICS`.
        asr: backend of CER (`tokgen.metrics.cer.make_recogniser`); None if no clip has a CER.
        cer_cap: largest CER of a clip; None for no cap.
        mos: backend of MOS (`tokgen.metrics.mos.make_mos`).
        speaker_encoder: backend of speaker similarity (`speaker.make_speaker_encoder`).
        mos_reference: clean speech [1, N] for SQUIM, not one of the scored clips.
        sample_rate: sample rate of `mos_reference` in Hz.
        channels: most channels of the clips. `backends` names what is done with several.
        device: device for wav2vec2 and MOS; None for a GPU if there is one.
    Attributes:
        backends: metric to backend.
        languages: languages of the recogniser; () if it does not state them, or there is none.
        batched: metrics that a GPU computes, in batches of clips of equal length.
        rest: the other metrics.
    Raises:
        ValueError: unknown metric, or a cap that is not above 0.
        ModuleNotFoundError: the package of a metric is missing; the error names the extra.
    """

    def __init__(
        self,
        metrics: Sequence[str] = DEFAULT_METRICS,
        *,
        asr: str | None = "auto",
        cer_cap: float | None = None,
        mos: str = "auto",
        speaker_encoder: str = "auto",
        mos_reference: Tensor | None = None,
        sample_rate: int = 16000,
        channels: int = 1,
        device: str | torch.device | None = None,
    ) -> None:
        check_metrics(metrics)
        check_cap(cer_cap)
        self.metrics = tuple(metrics)
        for name, package in (("pesq", "pesq"), ("f0", "swift_f0"), ("voicing", "swift_f0")):
            if name in metrics:
                require(package)
        self._recogniser = make_recogniser(asr) if asr is not None and "cer" in metrics else None
        self._cap = cer_cap
        self.languages = self._recogniser.languages if self._recogniser else ()
        self._mos = make_mos(mos, mos_reference, sample_rate) if "mos" in metrics else None
        make = speaker.make_speaker_encoder
        self._speaker = make(speaker_encoder) if "speaker" in metrics else None
        capped = "no cap" if cer_cap is None else f"clips capped at {cer_cap:g}"
        backends = {
            "cer": f"{self._recogniser.backend}, {capped}" if self._recogniser else "",
            "mos": self._mos.backend if self._mos else "",
            "pesq": pesq.BACKEND,
            "si_sdr": si_sdr.BACKEND,
            "speaker": self._speaker.backend if self._speaker else "",
            "f0": pitch.BACKEND,
            "voicing": pitch.BACKEND,
        }
        self.backends = {name: backends[name] for name in self.metrics}
        if channels > 1:
            for name in self.metrics:
                joined = "channels as one signal" if name == "si_sdr" else "mean of channels"
                self.backends[name] += f", {joined}"
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batched: tuple[str, ...] = ()
        if target.type != "cpu":
            for name, judge in (("cer", self._recogniser), ("mos", self._mos)):
                if isinstance(judge, Wav2Vec2Recogniser | MosPredictor):
                    judge.to(target)
                    self.batched += (name,)
        self.rest = tuple(n for n in self.metrics if n not in self.batched)
        self._references: dict[str, tuple[Any, Any]] = {}

    def score(
        self,
        clip: Tensor,
        reference: Tensor,
        text: str | None,
        sample_rate: int,
        metrics: Collection[str] | None = None,
    ) -> dict[str, Any]:
        """Score one clip.

        Args:
            clip, reference, text, sample_rate: as in `Clip`.
            metrics: a part of the scorer's metrics; None for all.
        Returns:
            Metric to value, NaN for a failure. CER is in "edits", "chars" and "transcript".
            "failures" and "not_applicable" hold reasons by metric, if there are any.
            "pesq_pieces" holds the pieces of a long clip and how many of them were left out.
        """
        wanted = set(self.metrics if metrics is None else metrics)
        record: dict[str, Any] = {}
        failed: dict[str, str] = {}
        if "cer" in wanted:
            heard = None
            if self._recogniser and text is not None:
                try:
                    heard = self._recogniser.transcribe(clip, sample_rate)
                except RecognitionError as error:
                    failed["cer"] = str(error)
            record |= _cer_of(heard, text, self._cap)
        if self._mos and "mos" in wanted:
            record["mos"] = self._mos.score(clip, sample_rate)
        if "pesq" in wanted:
            found = pesq.measure_pesq(reference, clip, sample_rate)
            record["pesq"] = found.value
            if found.reason:
                failed["pesq"] = found.reason
            elif found.n_pieces > 1:
                record["pesq_pieces"] = [found.n_pieces, found.n_silent]
        if "si_sdr" in wanted:
            record["si_sdr"] = si_sdr.si_sdr(reference, clip)
        if {"speaker", "f0", "voicing"} & wanted:
            ours = self._describe(clip, sample_rate)
            theirs = self._describe_reference(reference, sample_rate)
            if "speaker" in wanted:
                record["speaker"] = speaker.speaker_similarity(theirs[0], ours[0])
            if {"f0", "voicing"} & wanted:
                errors = pitch.pitch_errors(theirs[1], ours[1])
                values = {"f0": errors.f0_rmse_cents, "voicing": errors.voicing_error}
                record |= {name: value for name, value in values.items() if name in wanted}
        reasons = {"failures": failed} if failed else {}
        return join(record, reasons, explain(record, clip, reference, sample_rate))

    def embed(self, clip: Tensor, sample_rate: int) -> Tensor | None:
        """Return the speaker embedding [D] of a clip; None without one, or without the metric."""
        return self._speaker.embed(clip, sample_rate) if self._speaker else None

    def score_batch(self, clips: Sequence[Clip]) -> list[dict[str, Any]]:
        """Compute the `batched` metrics of clips. Records are those of `score`."""
        records: list[dict[str, Any]] = [{} for _ in clips]
        for group in _equal_lengths(clips):
            audio, rate = [clips[i].audio for i in group], clips[group[0]].sample_rate
            if self._mos and "mos" in self.batched:
                for i, value in zip(group, self._mos.score_batch(audio, rate), strict=True):
                    records[i]["mos"] = value
                    found = explain(records[i], clips[i].audio, clips[i].reference, rate)
                    records[i] = join(records[i], found)
            if isinstance(self._recogniser, Wav2Vec2Recogniser) and "cer" in self.batched:
                spoken = [i for i in group if clips[i].text is not None]
                heard = self._recogniser.transcribe_batch([clips[i].audio for i in spoken], rate)
                for i, transcript in zip(spoken, heard, strict=True):
                    why = why_unusable(clips[i].audio)
                    failed = {"failures": {"cer": why}} if transcript is None else {}
                    records[i] = join(
                        records[i], _cer_of(transcript, clips[i].text, self._cap), failed
                    )
                for i in set(group) - set(spoken):
                    records[i] |= _cer_of(None, None)
        return records

    def score_all(self, clips: Iterable[Clip]) -> Iterator[dict[str, Any]]:
        """Yield the records of clips. Uses one thread so that results equal `ScoringPool`'s."""
        for clip in clips:
            with one_thread():
                [record] = self.score_batch([clip])
                parts = clip.audio, clip.reference, clip.text, clip.sample_rate
                record = join(record, self.score(*parts, self.rest))
            yield record

    def failed(self, text: str | None) -> dict[str, Any]:
        """Return the record of a clip whose process died: every metric of `rest` failed."""
        failed = [name for name in self.rest if name != "cer" or text is not None]
        record: dict[str, Any] = {name: math.nan for name in self.rest if name != "cer"}
        record |= _cer_of(None, None) if "cer" in self.rest else {}
        return record | {"failures": dict.fromkeys(failed, DIED)}

    def _describe_reference(self, reference: Tensor, sample_rate: int) -> tuple[Any, Any]:
        """Return `_describe` of a reference, cached because all rows have the same references."""
        key = f"{hash_audio([reference])} {sample_rate}"
        if key not in self._references:
            if len(self._references) >= REMEMBERED:
                self._references.pop(next(iter(self._references)))
            self._references[key] = self._describe(reference, sample_rate)
        return self._references[key]

    def _describe(self, clip: Tensor, sample_rate: int) -> tuple[Any, Any]:
        """Return speaker embedding and pitch track; None for a part that is not needed."""
        wanted = {"f0", "voicing"} & set(self.metrics)
        return self.embed(clip, sample_rate), pitch.track_pitch(
            clip, sample_rate
        ) if wanted else None


def score_clips(
    scorer: ClipScorer,
    name: str,
    clips: Sequence[Tensor],
    references: Sequence[Tensor],
    texts: Sequence[str | None],
    sample_rate: int,
    *,
    ids: Sequence[str] | None = None,
    languages: Sequence[str | None] | None = None,
    out: Path | None = None,
    bar: ProgressBar | None = None,
) -> list[dict[str, Any]]:
    """Score the clips of a row, and return records with row, clip, id, text and scores.

    Args:
        scorer: `Scorer` to score in this process, or `ScoringPool` to score in several.
        name: name of the row.
        clips, references, texts, sample_rate: as in `Clip`, in the same order.
        ids: ids of the clips, for messages; None for their numbers.
        languages: languages of the clips; None if they are unknown. A clip in a language that the
            recogniser does not know has no CER.
        out: folder that keeps the records. After a kill, a call with the same audio, texts and
            backends resumes.
        bar: progress bar to update after each clip.
    """
    known = scorer.languages
    spoken = languages or [None] * len(clips)
    why = [why_no_cer(t, lang, known) for t, lang in zip(texts, spoken, strict=True)]
    heard = [None if reason else text for text, reason in zip(texts, why, strict=True)]
    store = None
    if out is not None:
        plan = [scorer.backends, hash_audio([*clips, *references]), heard, sample_rate]
        store = RecordStore(out, name, plan)
    records: list[dict[str, Any]] = list(store.records[: len(clips)]) if store else []
    if bar is not None:
        bar.update(len(records))
    left = range(len(records), len(clips))
    todo = (Clip(clips[i], references[i], heard[i], sample_rate) for i in left)
    for i, scores in zip(left, scorer.score_all(todo), strict=True):
        record = {"row": name, "clip": i, "text": texts[i]} | ({"id": ids[i]} if ids else {})
        reasons = {"not_applicable": {"cer": why[i]}} if why[i] and "cer" in scorer.backends else {}
        records.append(join(record, scores, reasons))
        if store:
            store.append(records[-1])
        if bar is not None:
            bar.update()
    return records


def _equal_lengths(clips: Sequence[Clip]) -> Iterator[list[int]]:
    """Yield indices of clips of one length and rate, `BATCH_SECONDS` per group at most."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, clip in enumerate(clips):
        groups.setdefault((clip.audio.shape[-1], clip.sample_rate), []).append(i)
    for (n_samples, rate), group in groups.items():
        size = max(1, int(BATCH_SECONDS * rate / max(1, n_samples)))
        for start in range(0, len(group), size):
            yield group[start : start + size]


def _cer_of(heard: str | None, text: str | None, cap: float | None = None) -> dict[str, Any]:
    """Return transcript, edits and reference characters; NaN without a text or a transcript."""
    if heard is None or text is None or not normalise_text(text):
        return {"transcript": heard, "edits": math.nan, "chars": math.nan}
    found = edits(text, heard, cap)
    return {"transcript": heard, "edits": found.n_edits, "chars": found.n_chars}
