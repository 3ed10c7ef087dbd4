"""Mel and STFT distances: equal to DAC's on five clips, and what cannot be measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from makers.speech import five_clips
from tokgen.metrics.spectral import measure_spectra

# MelSpectrogramLoss() and MultiScaleSTFTLoss() of descript-audiotools 0.7.2, which DAC's evaluation
# uses, on makers.speech.
REFERENCE = {
    "mel": (1.7261108, 1.7372818, 1.8848805, 2.4718721, 1.8195268),
    "stft": (2.5724616, 2.6760554, 2.8156981, 3.3782432, 2.6134322),
}


def test_five_clips_equal_the_reference_to_1e_5():
    found = [measure_spectra(a, b, 16000) for a, b in five_clips()]
    for name, values in REFERENCE.items():
        np.testing.assert_allclose([f[name].value for f in found], values, atol=1e-5)


def test_equal_audio_has_no_distance_and_the_distance_is_symmetric():
    clean, noisy = five_clips()[2]
    assert {m.value for m in measure_spectra(clean, clean, 16000).values()} == {0.0}
    there, back = (measure_spectra(a, b, 44100) for a, b in ((clean, noisy), (noisy, clean)))
    for name in REFERENCE:
        assert there[name].value == pytest.approx(back[name].value) and there[name].value > 0


def test_what_cannot_be_measured_has_a_reason():
    clean, noisy = five_clips()[0]
    for a, b, reason in (
        (clean[:, :1000], noisy[:, :1000], "1000 samples, but the longest window needs 1025"),
        (clean, 0 * noisy, "silent"),
        (clean * math.inf, noisy, "the reference: NaN or infinite samples"),
        (torch.zeros(1, 0), torch.zeros(1, 0), "the reference: no samples"),
    ):
        for measured in measure_spectra(a, b, 16000).values():
            assert math.isnan(measured.value) and measured.reason == reason
