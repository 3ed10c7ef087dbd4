"""Text normalisation for CER."""

from __future__ import annotations

import pytest

from tokgen.metrics.text import normalise_text


@pytest.mark.parametrize(
    ("raw", "plain"),
    [
        ("Press 2, please.", "press two please"),
        ("Don't  STOP — it’s 1,024!", "dont stop its one thousand and twenty four"),
        ("Café [music] déjà-vu", "café music déjà vu"),
        ("ﬁve", "five"),
        ("9" * 5000, " ".join(["nine"] * 5000)),
        ("2.5%", "two point five percent"),
        ("up 50 % or 3 per cent.", "up fifty percent or three percent"),
        ("1st", "first"),
        ("the 2nd, 3rd and 4th", "the second third and fourth"),
        ("on the 21st.", "on the twenty first"),
        ("the 112th", "the one hundred and twelfth"),
        ("the 1,000th", "the one thousandth"),
        ("3.14", "three point one four"),
        ("It is 3.5.", "it is three point five"),
        ("10.05 and .5", "ten point zero five and point five"),
        ("1,024.50", "one thousand and twenty four point five zero"),
        ("0.7", "zero point seven"),
        ("version 1.2.3", "version one two three"),
        ("at 10:30", "at ten thirty"),
        ("$5", "five"),
        ("100% sure", "one hundred percent sure"),
        ("a % sign", "a sign"),
        ("5standing 3thin", "five standing three thin"),
        ("9" * 20 + "th", " ".join(["nine"] * 20)),
        ("0." + "3" * 1000, "zero point " + " ".join(["three"] * 1000)),
        ("٣ and ٣.٥", "three and three point five"),
        ("", ""),
        ("...", ""),
    ],
)
def test_text_is_normalised(raw, plain):
    assert normalise_text(raw).replace("-", " ") == plain
