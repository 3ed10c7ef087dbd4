"""Normalise text for CER and WER."""

from __future__ import annotations

import re
import unicodedata

from tokgen.extras import require
from tokgen.metrics.languages import language_code

__all__ = ["MAX_DIGITS", "normalise_text"]

# Decimals such as 2.5 and .5, but not parts of 1.2.3; ordinals such as 21st; other numbers.
_NUMBER = re.compile(
    r"(?<![\d.])(?P<whole>\d*)\.(?P<decimals>\d+)(?!\.?\d)"
    r"|(?P<ordinal>\d+)(?:st|nd|rd|th)\b"
    r"|(?P<integer>\d+)"
)
MAX_DIGITS = 15  # longer numbers (a looping recogniser makes them) are read digit by digit


def normalise_text(text: str, language: str | None = None) -> str:
    """Reduce text to lower-case letters and single spaces, with numbers spelled out.

    "Press 2, please." and "press two please" become equal, and so do "2.5%" and "two point five
    percent", and "1st" and "first". Apostrophes inside words are dropped ("don't" becomes "dont").
    Other punctuation separates words. The content of brackets stays.

    Args:
        language: code or name of the language of the numbers; None for English. Decimals, ordinals
            and percent are read in English only. In a language that num2words does not know,
            digits stay.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"[’'ʼ]", "", text)
    if language is not None and (code := language_code(language)) != "en":
        return _letters(re.sub(r"\d+", lambda found: f" {_number(found[0], code)} ", text), "LMN")
    text = re.sub(r"(?<=\d),(?=\d{3}(?!\d))", "", text)
    text = re.sub(r"(?<=\d)\s*%|\bper cent\b", " percent", text)
    text = _NUMBER.sub(lambda found: f" {_words(found)} ", text)
    return _letters(text)


def _letters(text: str, kinds: str = "LM") -> str:
    """Replace all characters but those of some kinds of Unicode by single spaces."""
    kept = (c if unicodedata.category(c)[0] in kinds else " " for c in text)
    return " ".join("".join(kept).split())


def _number(digits: str, code: str) -> str:
    """Spell a whole number in a language other than English; unknown languages keep the digits."""
    if len(digits) > MAX_DIGITS:
        return " ".join(digits)
    try:
        return str(require("num2words").num2words(int(digits), lang=code))
    except NotImplementedError:
        return digits


def _words(found: re.Match[str]) -> str:
    """Spell the number of a match of `_NUMBER`."""
    if (ordinal := found["ordinal"]) and len(ordinal) <= MAX_DIGITS:
        return _spell(ordinal, to="ordinal")
    if decimals := found["decimals"]:
        whole = f"{_cardinal(found['whole'])} " if found["whole"] else ""
        return f"{whole}point {_digits(decimals)}"
    return _cardinal(ordinal or found["integer"])


def _cardinal(digits: str) -> str:
    return _spell(digits) if len(digits) <= MAX_DIGITS else _digits(digits)


def _digits(digits: str) -> str:
    return " ".join(map(_spell, digits))


def _spell(digits: str, to: str = "cardinal") -> str:
    return str(require("num2words").num2words(int(digits), lang="en", to=to))
