"""Names and codes of languages, to compare what a corpus and a recogniser state."""

from __future__ import annotations

import re

__all__ = ["NAMES", "language_code"]

NAMES = {  # two letters: three letters and names
    "ar": "ara arabic",
    "bn": "ben bengali",
    "ca": "cat catalan",
    "cs": "ces cze czech",
    "da": "dan danish",
    "de": "deu ger german deutsch",
    "el": "ell gre greek",
    "en": "eng english",
    "es": "spa spanish castilian español",
    "et": "est estonian",
    "eu": "eus baq basque",
    "fa": "fas per persian farsi",
    "fi": "fin finnish",
    "fr": "fra fre french français",
    "he": "heb hebrew",
    "hi": "hin hindi",
    "hu": "hun hungarian",
    "id": "ind indonesian",
    "it": "ita italian italiano",
    "ja": "jpn japanese",
    "ko": "kor korean",
    "lt": "lit lithuanian",
    "lv": "lav latvian",
    "nl": "nld dut dutch nederlands",
    "no": "nor nb nob norwegian",
    "pl": "pol polish polski",
    "pt": "por portuguese português",
    "ro": "ron rum romanian",
    "ru": "rus russian",
    "sk": "slk slo slovak",
    "sl": "slv slovenian",
    "sv": "swe swedish",
    "sw": "swa swahili",
    "ta": "tam tamil",
    "te": "tel telugu",
    "th": "tha thai",
    "tr": "tur turkish",
    "uk": "ukr ukrainian",
    "ur": "urd urdu",
    "vi": "vie vietnamese",
    "zh": "zho chi cmn chinese mandarin",
}
_CODES = {word: code for code, words in NAMES.items() for word in (code, *words.split())}


def language_code(language: str) -> str:
    """Return the code of a language: "en" for "en", "en-US", "en_GB", "eng" and "English".

    What is not in `NAMES` is returned in lower case, without region.
    """
    plain = language.strip().lower()
    head = re.split(r"[-_ (]", plain, maxsplit=1)[0]
    return _CODES.get(plain) or _CODES.get(head) or head
