"""Tests of plots: the files hold pictures, for empty histories too."""

import matplotlib.image
import pytest
import torch

from makers.audio import make_tone
from tokgen.plotting import plot_curves, plot_depths, plot_spectrograms


@pytest.mark.parametrize(
    "history",
    [
        [],
        [{"step": 1, "loss": 2.0}],
        [
            {"step": s, "loss": 1 / s, f"accuracy/level{s % 3}": 0.1 * s, "validation/loss": 1.0}
            for s in range(1, 9)
        ],
    ],
)
def test_curves(history, tmp_path):
    plot_curves(history, tmp_path / "deep" / "curves.png")
    picture = matplotlib.image.imread(tmp_path / "deep" / "curves.png")
    assert picture.shape[:2] == (480, 1320) and picture.std() > 0.01


def test_spectrograms_differ_as_their_clips_do(tmp_path):
    clips = {"original": make_tone(1.0, 0), "silence": make_tone(1.0, 0) * 0}
    plot_spectrograms(clips, 16000, tmp_path / "s.png")
    picture = matplotlib.image.imread(tmp_path / "s.png")[60:-60, :, :3]
    left, right = picture[:, 80:380], picture[:, 480:740]
    assert left.std() > 0.1 and right.std() < 0.05


def test_depth_is_drawn_under_the_spectrogram(tmp_path):
    depths = {"shallow": torch.full((50,), 1), "deep": torch.full((50,), 4)}
    plot_depths(make_tone(1.0, 0), 16000, depths, 4, 320, tmp_path / "deep" / "d.png")
    picture = matplotlib.image.imread(tmp_path / "deep" / "d.png")[..., :3]
    blue = (abs(picture - [0x1F / 255, 0x4E / 255, 0x9C / 255]) < 0.02).all(-1)
    rows = blue.sum(1)
    half = len(rows) * 3 // 4
    assert rows[half:].sum() > 3 * rows[:half].sum() > 0  # four levels, and one
