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
        ("", ""),
        ("...", ""),
    ],
)
def test_text_is_normalised(raw, plain):
    assert normalise_text(raw).replace("-", " ") == plain
