"""Transcripts of a recogniser in records of clips: edits of characters and words."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

from tokgen.metrics.cer import NO_SPACES, edits, word_edits
from tokgen.metrics.languages import language_code
from tokgen.metrics.text import normalise_text

__all__ = ["has_words", "text_record"]


def has_words(language: str | None) -> bool:
    """Return whether a language separates words, so that it has a WER; unknown ones do."""
    return language is None or language_code(language) not in NO_SPACES


def text_record(
    heard: str | None,
    text: str | None,
    metrics: Collection[str],
    *,
    cap: float | None = None,
    language: str | None = None,
) -> dict[str, Any]:
    """Return the transcript with the edits of "cer" and "wer", those of them in `metrics`.

    Without a text or a transcript, numbers are NaN.

    Args:
        heard: transcript of the recogniser; None if it failed, or did not hear the clip.
        text: what was said; None if it is unknown.
        cap: largest CER, as in `edits`.
        language: language of the numbers in both.
    """
    record: dict[str, Any] = {"transcript": heard}
    known = heard is not None and text is not None and bool(normalise_text(text, language))
    if "cer" in metrics:
        record |= {"edits": math.nan, "chars": math.nan}
        if known and text is not None and heard is not None:
            found = edits(text, heard, cap, language)
            record |= {"edits": found.n_edits, "chars": found.n_chars}
    if "wer" in metrics:
        record |= {"word_edits": math.nan, "words": math.nan}
        if known and text is not None and heard is not None and has_words(language):
            words = word_edits(text, heard, language)
            record |= {"word_edits": words.n_edits, "words": words.n_words}
    return record
