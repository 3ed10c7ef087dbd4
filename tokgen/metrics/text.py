"""The one text normaliser: both sides of a CER go through it."""

from __future__ import annotations

import re
import unicodedata

from tokgen.extras import require

MAX_DIGITS = 15  # longer numbers, such as a looping recogniser's, are read digit by digit


def normalise_text(text: str, language: str = "en") -> str:
    """Lower case, digits spelled out, letters and single spaces only.

    "Press 2, please." and "press two please" become equal. Apostrophes inside words are dropped
    ("don't" -> "dont"), other punctuation separates words; brackets go, their content stays.

    Args:
        text: any Unicode; compared in NFKC.
        language: of the number words, as num2words names it.
    """
    text = unicodedata.normalize("NFKC", text).lower()
    text = re.sub(r"[’'ʼ]", "", text)
    text = re.sub(r"(?<=\d),(?=\d{3}\b)", "", text)
    text = re.sub(r"\d+", lambda m: f" {_words(m[0], language)} ", text)
    kept = (c if unicodedata.category(c)[0] in "LM" else " " for c in text)
    return " ".join("".join(kept).split())


def _words(digits: str, language: str) -> str:
    spell = require("num2words").num2words
    numbers = [digits] if len(digits) <= MAX_DIGITS else list(digits)
    return " ".join(spell(int(number), lang=language) for number in numbers)
