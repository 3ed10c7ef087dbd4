"""Why metrics fail on clips or do not apply to them.

Records of clips hold the reasons by metric, in "failures" and "not_applicable".
"""

from __future__ import annotations

import math
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tokgen.evaluation.metric import METRICS
from tokgen.evaluation.transcripts import has_words
from tokgen.metrics import pesq, pitch, speaker
from tokgen.metrics.failures import Failure
from tokgen.metrics.languages import language_code
from tokgen.metrics.signals import why_unusable
from tokgen.metrics.statistics import Estimate
from tokgen.metrics.text import normalise_text

__all__ = [
    "DIED",
    "HIGH_CER",
    "KINDS",
    "explain",
    "failures_of",
    "join",
    "notes_on",
    "warn_of_high_cer",
    "why_no_text",
]

DIED = "scoring this clip ended its process twice"
HIGH_CER = 0.5  # of originals; recognisers that know the language stay far below
KINDS = ("failures", "not_applicable")


def why_no_text(metric: str, text: str | None, language: str | None, known: Sequence[str]) -> str:
    """Return why a clip has no "cer" or "wer"; "" if it has one.

    Args:
        metric: "cer" or "wer".
        text: transcript.
        language: code or name; None if it is unknown.
        known: languages of the recogniser; none if it does not state them.
    """
    if text is None:
        return "no transcript"
    if not normalise_text(text, language):
        return "no letters in the transcript"
    if language and known and language_code(language) not in known:
        return f"the recogniser knows {_some(known)}, but the language is {language}"
    if metric == "wer" and not has_words(language):
        return f"{language} does not separate words"
    return ""


def _some(languages: Sequence[str]) -> str:
    """Name languages, the first of many."""
    return ", ".join(languages) if len(languages) < 9 else f"{len(languages)} languages"


def explain(
    record: Mapping[str, Any], clip: Tensor, reference: Tensor, sample_rate: int
) -> dict[str, Any]:
    """Return the reasons for the values of a record that are not finite, of metrics that give none.

    Args:
        record: metric to value, of one clip.
        clip, reference: waveforms [1, N].
    """
    failed, senseless = {}, {}
    for metric in ("mos", "utmos", "si_sdr", "speaker", "f0", "voicing"):
        if metric not in record or math.isfinite(record[metric]):
            continue
        if metric == "si_sdr" and record[metric] == math.inf:
            senseless[metric] = "equal to the reference"
        else:
            failed[metric] = _reason(metric, clip, reference, sample_rate)
    return {k: v for k, v in zip(KINDS, (failed, senseless), strict=True) if v}


def join(*records: Mapping[str, Any]) -> dict[str, Any]:
    """Join records of one clip that hold different metrics, with all their reasons."""
    found = {name: value for record in records for name, value in record.items()}
    for kind in KINDS:
        reasons = {m: reason for r in records for m, reason in r.get(kind, {}).items()}
        if reasons:
            found[kind] = reasons
    return found


def failures_of(row: str, records: Sequence[Mapping[str, Any]]) -> list[Failure]:
    """Return the failures in the records of a row, clip by clip."""
    return [
        Failure(str(record.get("id", record.get("clip", i))), row, metric, reason)
        for i, record in enumerate(records)
        for metric, reason in record.get("failures", {}).items()
    ]


def notes_on(rows: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Describe what does not apply, and clips whose PESQ was measured in pieces.

    Args:
        rows: name of a row to the records of its clips.
    """
    found: dict[str, list[str]] = {}  # note to the rows that it is about
    for row, records in rows.items():
        counts = Counter(pair for r in records for pair in r.get("not_applicable", {}).items())
        for (metric, reason), n in counts.items():
            label = METRICS[metric].label
            note = f"{label} does not apply to {n} of {len(records)} clips{{}}: {reason}"
            found.setdefault(note, []).append(row)
        cut = [r["pesq_pieces"] for r in records if "pesq_pieces" in r]
        if cut:
            n, silent = (sum(pair[i] for pair in cut) for i in (0, 1))
            left_out = f", {silent} of them without an utterance and left out" if silent else ""
            clips = f"{len(cut)} {'clip' if len(cut) == 1 else 'clips'}{{}}"
            longer = f"longer than {pesq.MAX_SECONDS} s"
            note = f"PESQ of {clips} {longer}: mean over {n} equal pieces{left_out}"
            found.setdefault(note, []).append(row)
    return [
        note.format("" if len(names) == len(rows) else f" of {', '.join(names)}")
        for note, names in found.items()
    ]


def warn_of_high_cer(original: Estimate | None, known: Sequence[str] = ()) -> list[str]:
    """Warn if the CER of originals is above `HIGH_CER`, and return the warning as a note.

    Args:
        original: CER of the originals; None if it was not measured.
        known: languages of the recogniser; none if it does not state them.
    """
    if original is None or not original.mean > HIGH_CER:
        return []
    languages = f" (it knows {_some(known)})" if known else ""
    note = (
        f"CER of the originals is {original.mean:.2f}, so CER says little here: the clips may be "
        f"in a language that the recogniser does not know{languages}, be no speech, or have the "
        "transcripts of other clips. State the language, choose another recogniser (asr), or leave "
        "cer out"
    )
    warnings.warn(note, stacklevel=4)
    return [note]


def _reason(metric: str, clip: Tensor, reference: Tensor, sample_rate: int) -> str:
    """Return why a metric of a clip is not finite."""
    signals = {"": clip} if metric in ("mos", "utmos") else {"": clip, "the reference: ": reference}
    for prefix, waveform in signals.items():
        if problem := _problem(metric, waveform, sample_rate):
            return prefix + problem
    return {
        "f0": "no frame is voiced in both the clip and the reference",
        "si_sdr": "nothing in common with the reference",
    }.get(metric, "the value is not finite")


def _problem(metric: str, waveform: Tensor, sample_rate: int) -> str:
    """Return why a waveform cannot be measured; "" if it can."""
    if problem := why_unusable(waveform):
        return problem
    if metric == "speaker":
        return speaker.why_no_embedding(waveform, sample_rate)
    if metric in ("f0", "voicing"):
        return pitch.why_no_track(waveform, sample_rate)
    return "silent" if waveform.min() == waveform.max() else ""
