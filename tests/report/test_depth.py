"""Tests of the depth of clips on the page."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from makers.codecs import make_stft_codec
from makers.pages import data_of, page_of, text_of
from tokgen.codec.depth_files import depth_path, write_depth
from tokgen.report.depth import DepthCurve, read_depth
from tokgen.report.page import write_report

SPEC = make_stft_codec().spec  # 4 levels, 50 frames per second
DEPTH = torch.tensor([1, 1, 4, 2] * 6 + [3] * 6)  # of 0.6 s


def test_a_curve_is_a_path_of_steps() -> None:
    curve = DepthCurve([1, 1, 4, 0], 4, 50.0)
    assert curve.path == "M0 4V3H2V0H3V4H4V4Z" and curve.mean == 1.5
    assert curve.width(0.16) == 50.0 and curve.width(0.0) == 0.0


def test_depth_is_written_and_read(tmp_path: Path) -> None:
    audio = tmp_path / "000.codec 2.5.wav"
    assert read_depth(audio) is None
    write_depth(audio, DEPTH, SPEC)
    assert depth_path(audio).name == "000.codec 2.5.depth.json"
    assert read_depth(audio) == DepthCurve(DEPTH.tolist(), 4, 50.0)


def test_a_clip_shows_its_depth(samples_run: Path) -> None:
    write_depth(samples_run / "samples" / "001.resynthesis.wav", DEPTH, SPEC)
    page = page_of(samples_run)
    assert page.count('<span class="depth">') == 1
    assert 'viewBox="0 0 30 4" preserveAspectRatio="none" style="width: 100.0%"' in page
    assert f'<path d="{DepthCurve(DEPTH.tolist(), 4, 50.0).path}"/>' in page
    assert f"{float(DEPTH.float().mean()):.2f} of 4 levels on average" in text_of(page)
    assert "the number of levels of each frame" in text_of(page)
    first, second, _ = data_of(page)["listenings"][0]["clips"]
    assert "depths" not in first
    curve = {"depth": DEPTH.tolist(), "n_codebooks": 4, "frame_rate": 50.0}
    assert second["depths"] == [None, curve, None]


def test_pages_without_depth_do_not_mention_it(plain_page: str) -> None:
    assert "levels of each frame" not in plain_page and '"depths"' not in plain_page
    assert '<span class="depth">' not in plain_page


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"depth": [5]}, "whole numbers of 0 to 4"),
        ({"depth": [1.5]}, "whole numbers of 0 to 4"),
        ({"depth": [None]}, "whole numbers of 0 to 4"),
        ({"depth": []}, "0 frames"),
        ({"depth": "11"}, "expected an array"),
        ({"n_codebooks": 1e9}, "n_codebooks = 1000000000.0"),
        ({"frame_rate": 0}, "frame_rate = 0"),
        ({"frame_rate": None}, "frame_rate = nan"),
    ],
)
def test_a_damaged_depth_is_reported_and_left_out(
    samples_run: Path, tmp_path: Path, change: dict, reason: str
) -> None:
    audio = samples_run / "samples" / "000.resynthesis.wav"
    content = {"depth": [1, 2], "n_codebooks": 4, "frame_rate": 50.0, **change}
    depth_path(audio).write_text(json.dumps(content))
    written = write_report(samples_run, tmp_path / "x.html", clips=1, progress=False)
    assert written.n_sounds == 3 and len(written.problems) == 1
    assert "000.resynthesis.depth.json is damaged" in written.problems[0]
    assert reason in written.problems[0]
    assert '<span class="depth">' not in (tmp_path / "x.html").read_text()
