"""The simulation of intervals, tiny."""

from __future__ import annotations

import interval_coverage


def test_it_has_a_row_for_every_design(capsys) -> None:
    flags = ["--repetitions", "3", "--designs", "2", "--clips", "6", "--seeds", "2"]
    assert interval_coverage.main(flags) == 0
    lines = capsys.readouterr().out.splitlines()
    rows = [line for line in lines if line.startswith("| ")]
    assert len(rows) == (1 + 3) + (1 + len(interval_coverage.EFFECTS)) + (1 + 3)
    assert all(f"| {name}" in "\n".join(rows) for name in interval_coverage.VALUES)
    assert all(f"| {name}" in rows[0] for name in interval_coverage.METHODS)
