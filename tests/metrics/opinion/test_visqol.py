"""ViSQOL: equal to visqol-python's own files on five clips, and never without its lattice."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from makers.speech import five_clips
from tokgen.metrics.opinion.visqol import Visqol

# visqol-python 3.8.0 with ai-edge-litert 2.3.0, VisqolApi.measure on WAV files of makers.speech.
REFERENCE = {
    "visqol": (1.454255, 1.301195, 1.938207, 1.0, 2.134853),
    "visqol_audio": (4.098242, 3.940623, 4.013127, 3.858280, 4.012154),
}


def test_five_clips_equal_the_reference_to_1e_2():
    judge = Visqol("visqol")
    found = [judge.measure(a, b, 16000).value for a, b in five_clips()]
    np.testing.assert_allclose(found, REFERENCE["visqol"], atol=0.01)
    clean, _ = five_clips()[2]
    assert 4.4 < judge.measure(clean, clean, 16000).value <= 5
    assert "speech, lattice, 16 kHz" in judge.backend


def test_the_polynomial_in_place_of_the_lattice_scores_higher():
    package = pytest.importorskip("visqol").VisqolApi()
    package.create(mode="speech", use_lattice_model=False)
    clean, noisy = (clip[0].double().numpy() for clip in five_clips()[0])
    found = package.measure_from_arrays(clean, noisy, 16000).moslqo
    assert found > REFERENCE["visqol"][0] + 1


@pytest.mark.slow
def test_five_clips_in_the_mode_for_audio():
    judge = Visqol("visqol_audio")
    found = [judge.measure(a, b, 16000).value for a, b in five_clips()]
    np.testing.assert_allclose(found, REFERENCE["visqol_audio"], atol=0.01)


def test_what_cannot_be_measured_has_a_reason():
    judge, (clean, noisy) = Visqol("visqol"), five_clips()[2]
    assert judge.measure(clean, 0 * noisy, 16000).reason == "silent"
    short = judge.measure(clean[:, :800], noisy[:, :800], 16000)
    assert math.isnan(short.value) and short.reason.startswith("ViSQOL failed: ")
    assert judge.measure(clean, noisy * math.nan, 16000).reason == "NaN or infinite samples"
    with pytest.raises(ValueError, match="trim or pad to equal length"):
        judge.measure(clean, torch.zeros(1, 9), 16000)


def test_without_the_lattice_it_is_refused(monkeypatch):
    monkeypatch.setitem(sys.modules, "ai_edge_litert", None)
    with pytest.raises(ModuleNotFoundError, match=r"ai_edge_litert is not installed: pip install"):
        Visqol("visqol")
    assert Visqol("visqol_audio").backend.endswith("(audio, SVR, 48 kHz)")
