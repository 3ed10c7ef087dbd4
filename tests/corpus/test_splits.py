"""Names and choice of splits."""

from __future__ import annotations

from collections import Counter

import pytest

from tokgen.corpus.splits import assign_split


def test_assign_split_is_stable_and_90_5_5():
    assert [assign_split(i) for i in ("a", "clip-1", "größe")] == [
        assign_split(i) for i in ("a", "clip-1", "größe")
    ]
    counts = Counter(assign_split(f"clip-{i}") for i in range(10_000))
    assert counts["train"] == pytest.approx(9000, abs=150)
    assert counts["validation"] == pytest.approx(500, abs=100)
    assert counts["test"] == pytest.approx(500, abs=100)
