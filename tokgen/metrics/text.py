"""Normalise text for CER."""

from __future__ import annotations

import re
import unicodedata

from tokgen.extras import require

__all__ = ["MAX_DIGITS", "normalise_text"]

MAX_DIGITS = 15  # longer numbers (a looping recogniser makes them) are read digit by digit


def normalise_text(text: str) -> str:
    """Reduce text to lower-case letters and single spaces, with numbers spelled out.

    "Press 2, please." and "press two please" become equal. Apostrophes inside words are dropped
    ("don't" becomes "dont"). Other punctuation separates words. The content of brackets stays.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"[’'ʼ]", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\d+", lambda m: f" {_words(m[0])} ", text)
    kept = (c if unicodedata.category(c)[0] in "LM" else " " for c in text)
    return " ".join("".join(kept).split())


def _words(digits: str) -> str:
    spell = require("num2words").num2words
    numbers = [digits] if len(digits) <= MAX_DIGITS else list(digits)
    return " ".join(spell(int(number), lang="en") for number in numbers)
