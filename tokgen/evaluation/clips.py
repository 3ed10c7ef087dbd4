"""Score the clips of a row, and keep their records on disk."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tokgen.evaluation.metric import OF_ROWS, OF_TEXT
from tokgen.evaluation.reasons import join, why_no_text
from tokgen.evaluation.scorer import Clip, ClipScorer
from tokgen.runs.progress import ProgressBar
from tokgen.runs.store import RecordStore, hash_audio

__all__ = ["score_clips"]


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
    lost: Mapping[int, str] | None = None,
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
        lost: numbers of clips that have no audio, with the reason. All their metrics have failed.
        out: folder that keeps the records. After a kill, a call with the same audio, texts and
            backends resumes.
        bar: progress bar to update after each clip.
    """
    known, lost = scorer.languages, dict(lost or {})
    spoken = list(languages or [None] * len(clips))
    read = [m for m in OF_TEXT if m in scorer.backends]
    why = [
        {m: reason for m in read if (reason := why_no_text(m, text, language, known))}
        for text, language in zip(texts, spoken, strict=True)
    ]
    heard = [
        None if read and len(reasons) == len(read) else text
        for text, reasons in zip(texts, why, strict=True)
    ]
    store = None
    if out is not None:
        plan: list[Any] = [scorer.backends, hash_audio([*clips, *references]), heard, sample_rate]
        plan += [spoken] if len(known) > 1 and any(spoken) else []
        plan += [sorted(lost.items())] if lost else []
        store = RecordStore(out, name, plan)
    records: list[dict[str, Any]] = list(store.records[: len(clips)]) if store else []
    if bar is not None:
        bar.update(len(records))
    left = range(len(records), len(clips))
    todo = (
        Clip(clips[i], references[i], heard[i], sample_rate, spoken[i])
        for i in left
        if i not in lost
    )
    scored = scorer.score_all(todo)
    of_clips = [m for m in scorer.backends if m not in OF_ROWS]
    for i in left:
        scores = scorer.failed(heard[i], lost[i], of_clips) if i in lost else next(scored)
        record = {"row": name, "clip": i, "text": texts[i]} | ({"id": ids[i]} if ids else {})
        reasons = {"not_applicable": why[i]} if why[i] else {}
        records.append(join(record, scores, reasons))
        if store:
            store.append(records[-1])
        if bar is not None:
            bar.update()
    return records
