"""Character and word error rates (CER, WER) through a recogniser, with edits pooled over clips.

Neither has an upper end: a recogniser that loops on bad audio ("to to to") hears more characters
than were said. `edits` has a cap for those who want one. `tokgen.metrics.asr` has the recognisers.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokgen.extras import require
from tokgen.metrics.languages import language_code
from tokgen.metrics.text import normalise_text

__all__ = ["NO_SPACES", "Edits", "WordEdits", "edits", "word_edits"]

NO_SPACES = ("ja", "th", "zh")  # languages that do not separate words, so they have no WER


@dataclass(frozen=True)
class Edits:
    """Edits that turn the hypothesis into the reference, and the reference's characters."""

    n_edits: int
    n_chars: int


@dataclass(frozen=True)
class WordEdits:
    """Edits of words that turn the hypothesis into the reference, and the reference's words."""

    n_edits: int
    n_words: int


def edits(
    reference: str, hypothesis: str, cap: float | None = None, language: str | None = None
) -> Edits:
    """Count character edits between normalised texts.

    Args:
        cap: largest CER of a clip; the edits beyond it are not counted. None for no cap.
        language: language of the numbers, as in `normalise_text`.
    Raises:
        ValueError: the normalised reference is empty.
    """
    wanted, heard = _normalise(reference, hypothesis, language)
    count = _count("process_characters", wanted, heard) if heard else len(wanted)
    most = math.inf if cap is None else cap * len(wanted)
    return Edits(count if count <= most else math.floor(most), len(wanted))


def word_edits(reference: str, hypothesis: str, language: str | None = None) -> WordEdits:
    """Count word edits between normalised texts.

    Args:
        language: language of the numbers, as in `normalise_text`.
    Raises:
        ValueError: the normalised reference is empty, or the language does not separate words.
    """
    if language is not None and language_code(language) in NO_SPACES:
        raise ValueError(f"{language} does not separate words, so it has no WER: use CER")
    wanted, heard = _normalise(reference, hypothesis, language)
    n_words = len(wanted.split())
    return WordEdits(_count("process_words", wanted, heard) if heard else n_words, n_words)


def _normalise(reference: str, hypothesis: str, language: str | None) -> tuple[str, str]:
    wanted, heard = (normalise_text(text, language) for text in (reference, hypothesis))
    if not wanted:
        raise ValueError(f"transcript {reference!r} has no letters, so it has no CER")
    return wanted, heard


def _count(process: str, wanted: str, heard: str) -> int:
    out = getattr(require("jiwer"), process)(wanted, heard)
    return int(out.substitutions + out.deletions + out.insertions)
