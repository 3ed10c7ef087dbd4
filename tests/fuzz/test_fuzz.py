"""Damaged files end in values, rejections or clear errors."""

from __future__ import annotations

import pytest

from fuzz.campaign import run_campaign
from fuzz.targets import TARGETS

FILES = {"audio": 300, "model folders": 100}  # per kind


@pytest.mark.parametrize("kind", TARGETS)
def test_damaged_files_end_in_a_value_a_rejection_or_a_clear_error(kind: str) -> None:
    outcome = run_campaign(FILES.get(kind, 150), kinds=(kind,))
    assert not outcome.faults, outcome.table()
    assert sum(outcome.counts[kind].values()) == FILES.get(kind, 150)
    assert outcome.counts[kind]["rejected"] + outcome.counts[kind]["error"] > 10
