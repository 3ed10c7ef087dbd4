"""Score clips. A metric that fails is NaN in the record, never a score."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from tokgen.evaluation.measures import Measures
from tokgen.evaluation.metric import OF_ROWS, OF_TEXT, check_metrics
from tokgen.evaluation.reasons import DIED, explain, join
from tokgen.evaluation.settings import DEFAULT_METRICS, check_cap
from tokgen.evaluation.transcripts import text_record
from tokgen.extras import require
from tokgen.metrics import pesq, pitch, si_sdr, speaker
from tokgen.metrics.asr.base import BatchRecogniser, RecognitionError
from tokgen.metrics.asr.names import make_recogniser
from tokgen.metrics.frechet import Embedder, make_embedder
from tokgen.metrics.mos import MosPredictor, make_mos
from tokgen.metrics.opinion.utmos import UTMOS, Utmos
from tokgen.metrics.signals import why_unusable
from tokgen.runs.store import hash_audio
from tokgen.runs.workers import one_thread

__all__ = ["BATCH_SECONDS", "REMEMBERED", "Clip", "ClipScorer", "Scorer"]

REMEMBERED = 1000  # references whose speaker and pitch are kept, some kilobytes each
BATCH_SECONDS = 120  # seconds of audio per batch on a GPU


@dataclass(frozen=True)
class Clip:
    """A clip to score.

    Attributes:
        audio, reference: waveforms [1, N], or [C, N] for stereo, of equal length. SI-SDR compares
            all channels; the other metrics hear their mean.
        text: transcript. None if the clip has no CER and no WER.
        sample_rate: Hz.
        language: language of the text; None if it is unknown.
    """

    audio: Tensor
    reference: Tensor
    text: str | None
    sample_rate: int
    language: str | None = None


class ClipScorer(Protocol):
    """A `Scorer` or a `tokgen.evaluation.pool.ScoringPool`."""

    @property
    def backends(self) -> dict[str, str]: ...

    @property
    def languages(self) -> tuple[str, ...]: ...

    def failed(
        self, text: str | None, reason: str = ..., metrics: Sequence[str] | None = None
    ) -> dict[str, Any]: ...

    def score_all(self, clips: Iterable[Clip]) -> Iterator[dict[str, Any]]: ...


class Scorer:
    """Scores clips with the chosen metrics. Models are loaded once.

    Args:
        metrics: names in `METRICS`.
        asr: backend of CER and WER (`tokgen.metrics.asr.names.make_recogniser`); None if no clip
            has one.
        cer_cap: largest CER of a clip; None for no cap.
        mos: backend of MOS (`tokgen.metrics.mos.make_mos`).
        speaker_encoder: backend of speaker similarity (`speaker.make_speaker_encoder`).
        utmos: weights of UTMOS (`tokgen.metrics.opinion.utmos.Utmos`); "auto" for the usual ones.
        fad: embedding of FAD (`tokgen.metrics.frechet.make_embedder`).
        mos_reference: clean speech [1, N] for SQUIM, not one of the scored clips.
        sample_rate: sample rate of `mos_reference` in Hz.
        channels: most channels of the clips. `backends` names what is done with several.
        device: device for recognisers of transformers, MOS and UTMOS; None for a GPU if there is
            one.
    Attributes:
        backends: metric to backend.
        languages: languages of the recogniser; () if it does not state them, or there is none.
        batched: metrics that a GPU computes, in batches of clips of equal length.
        rest: the other metrics of clips.
        embedder: embeds the clips of a row for FAD; None without this metric.
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
        utmos: str = "auto",
        fad: str = "clap",
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
        heard = asr is not None and {*OF_TEXT} & {*metrics}
        self._recogniser = make_recogniser(asr) if asr is not None and heard else None
        self._cap = cer_cap
        self.languages = self._recogniser.languages if self._recogniser else ()
        self._opinions: dict[str, MosPredictor] = {}
        if "mos" in metrics:
            self._opinions["mos"] = make_mos(mos, mos_reference, sample_rate)
        if "utmos" in metrics:
            self._opinions["utmos"] = Utmos(UTMOS if utmos == "auto" else utmos)
        make = speaker.make_speaker_encoder
        self._speaker = make(speaker_encoder) if "speaker" in metrics else None
        self._measures = Measures(metrics)
        self.embedder: Embedder | None = make_embedder(fad) if "fad" in metrics else None
        capped = "no cap" if cer_cap is None else f"clips capped at {cer_cap:g}"
        backends = {
            "cer": f"{self._recogniser.backend}, {capped}" if self._recogniser else "",
            "wer": f"{self._recogniser.backend}, no cap" if self._recogniser else "",
            "pesq": pesq.BACKEND,
            "si_sdr": si_sdr.BACKEND,
            "speaker": self._speaker.backend if self._speaker else "",
            "f0": pitch.BACKEND,
            "voicing": pitch.BACKEND,
            "fad": self.embedder.backend if self.embedder else "",
        }
        backends |= {name: judge.backend for name, judge in self._opinions.items()}
        backends |= self._measures.backends
        self.backends = {name: backends[name] for name in self.metrics}
        if channels > 1:
            for name in self.metrics:
                joined = "channels as one signal" if name == "si_sdr" else "mean of channels"
                self.backends[name] += f", {joined}"
        target = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.batched: tuple[str, ...] = ()
        if target.type != "cpu":
            if isinstance(self._recogniser, BatchRecogniser):
                self._recogniser.to(target)
                self.batched += tuple(n for n in OF_TEXT if n in metrics)
            for name, judge in self._opinions.items():
                judge.to(target)
                self.batched += (name,)
        self.rest = tuple(n for n in self.metrics if n not in (*self.batched, *OF_ROWS))
        self._references: dict[str, tuple[Any, Any]] = {}

    def score(
        self,
        clip: Tensor,
        reference: Tensor,
        text: str | None,
        sample_rate: int,
        metrics: Collection[str] | None = None,
        language: str | None = None,
    ) -> dict[str, Any]:
        """Score one clip.

        Args:
            clip, reference, text, sample_rate, language: as in `Clip`.
            metrics: a part of the scorer's metrics; None for all.
        Returns:
            Metric to value, NaN for a failure. CER is in "edits" and "chars", WER in "word_edits"
            and "words"; "transcript" is what was heard.
            "failures" and "not_applicable" hold reasons by metric, if there are any.
            "pesq_pieces" holds the pieces of a long clip and how many of them were left out.
        """
        wanted = set(self.metrics if metrics is None else metrics)
        record: dict[str, Any] = {}
        failed: dict[str, str] = {}
        if texts := [name for name in OF_TEXT if name in wanted]:
            heard = None
            if self._recogniser and text is not None:
                try:
                    heard = self._recogniser.transcribe(clip, sample_rate, **self._told(language))
                except RecognitionError as error:
                    failed |= dict.fromkeys(texts, str(error))
            record |= text_record(heard, text, texts, cap=self._cap, language=language)
        for name, judge in self._opinions.items():
            if name in wanted:
                record[name] = judge.score(clip, sample_rate)
        for name, measured in self._measures.measure(clip, reference, sample_rate, wanted).items():
            record[name] = measured.value
            if measured.reason:
                failed[name] = measured.reason
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
            for name, judge in self._opinions.items():
                if name not in self.batched:
                    continue
                for i, value in zip(group, judge.score_batch(audio, rate), strict=True):
                    clip, record = clips[i], {name: value}
                    found = explain(record, clip.audio, clip.reference, rate)
                    records[i] = join(records[i], record, found)
            texts = [name for name in OF_TEXT if name in self.batched]
            if not isinstance(self._recogniser, BatchRecogniser) or not texts:
                continue
            language = clips[group[0]].language
            spoken = [i for i in group if clips[i].text is not None]
            heard = self._recogniser.transcribe_batch(
                [clips[i].audio for i in spoken], rate, **self._told(language)
            )
            for i, transcript in zip(spoken, heard, strict=True):
                why = dict.fromkeys(texts, why_unusable(clips[i].audio))
                failed = {"failures": why} if transcript is None else {}
                record = text_record(
                    transcript, clips[i].text, texts, cap=self._cap, language=language
                )
                records[i] = join(records[i], record, failed)
            for i in set(group) - set(spoken):
                records[i] |= text_record(None, None, texts)
        return records

    def score_all(self, clips: Iterable[Clip]) -> Iterator[dict[str, Any]]:
        """Yield the records of clips. Uses one thread so that results equal `ScoringPool`'s."""
        for clip in clips:
            with one_thread():
                [record] = self.score_batch([clip])
                parts = clip.audio, clip.reference, clip.text, clip.sample_rate
                record = join(record, self.score(*parts, self.rest, clip.language))
            yield record

    def failed(
        self, text: str | None, reason: str = DIED, metrics: Sequence[str] | None = None
    ) -> dict[str, Any]:
        """Return the record of a clip on which metrics failed for one reason.

        Args:
            text: as in `Clip`. Without it, CER and WER do not apply, and so did not fail.
            metrics: those that failed; None for `rest`.
        """
        wanted = self.rest if metrics is None else metrics
        texts = [name for name in OF_TEXT if name in wanted]
        record: dict[str, Any] = {name: math.nan for name in wanted if name not in OF_TEXT}
        record |= text_record(None, None, texts) if texts else {}
        failed = [name for name in wanted if name not in OF_TEXT or text is not None]
        return record | {"failures": dict.fromkeys(failed, reason)}

    def _told(self, language: str | None) -> dict[str, str]:
        """Return the language as an argument of a recogniser that knows several."""
        return {"language": language} if language and len(self.languages) > 1 else {}

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


def _equal_lengths(clips: Sequence[Clip]) -> Iterator[list[int]]:
    """Yield indices of clips of one length, rate and language, at most `BATCH_SECONDS` a group."""
    groups: dict[tuple[int, int, str | None], list[int]] = {}
    for i, clip in enumerate(clips):
        kind = clip.audio.shape[-1], clip.sample_rate, clip.language
        groups.setdefault(kind, []).append(i)
    for (n_samples, rate, _), group in groups.items():
        size = max(1, int(BATCH_SECONDS * rate / max(1, n_samples)))
        for start in range(0, len(group), size):
            yield group[start : start + size]
