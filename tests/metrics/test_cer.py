"""CER and WER: edits of characters and words."""

from __future__ import annotations

import pytest

from tokgen.metrics.cer import Edits, WordEdits, edits, word_edits


def test_edits_have_no_cap_but_the_one_that_is_given():
    assert edits("Press 2.", "press two") == Edits(0, 9)
    assert edits("abcd", "abxd") == Edits(1, 4)
    loop = "to " * 50  # a looping recogniser: 149 characters after normalisation
    assert edits("to", loop) == Edits(147, 2)
    assert edits("to", loop, cap=1) == Edits(2, 2)
    assert edits("toe", loop, cap=1.5) == Edits(4, 3)
    assert edits("abcd", "abxd", cap=1) == Edits(1, 4)
    assert edits("hello", "") == Edits(5, 5)
    with pytest.raises(ValueError, match="no letters"):
        edits("...", "x")


def test_edits_of_words():
    assert word_edits("Press 2.", "press two") == WordEdits(0, 2)
    assert word_edits("one two three", "one too three four") == WordEdits(2, 3)
    assert word_edits("one two", "") == WordEdits(2, 2)
    assert word_edits("am 3. Mai", "am drei Mai", "de") == WordEdits(0, 3)
    assert edits("am 3. Mai", "am drei mai", language="German") == Edits(0, 11)
    with pytest.raises(ValueError, match="no letters"):
        word_edits("...", "x")
    with pytest.raises(ValueError, match="zh does not separate words, so it has no WER"):
        word_edits("你好", "你好", "zh")
