"""Tests of the figures of the page."""

from __future__ import annotations

from tokgen.report.figures import training_pictures


def test_names_are_plain_text_and_colours_follow_the_theme():
    history = [{"step": float(s), "loss": 1 / s, "accuracy/level0": 0.1} for s in range(1, 9)]
    picture = training_pictures(['a$b$"<'], [history], "salt")[0]
    assert 'aria-label="Training loss against steps. a$b$&#34;&lt;: 8 steps."' in picture
    assert "var(--series-0)" in picture and "currentColor" in picture
    assert "#000000" not in picture and "#1f4e9c" not in picture
    assert "<text" in picture and "xmlns:dc" not in picture


def test_long_histories_are_thinned_and_keep_validations():
    history = [{"step": float(s), "loss": 1.0 + s % 7} for s in range(1, 20_001)]
    for row in history[999::1000]:
        row["validation/loss"] = 2.0
    picture = training_pictures(["x"], [history], "salt")[0]
    assert len(picture) < 60_000
    assert picture.count("<use") >= 20
