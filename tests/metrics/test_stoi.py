"""STOI and ESTOI: equal to pystoi on five clips, and what cannot be measured."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from makers.speech import five_clips
from tokgen.metrics.stoi import measure_stoi

# pystoi 0.4.1 on makers.speech, which its authors hold to the Matlab code of Taal and Jensen.
REFERENCE = {
    False: (0.9860292, 0.9877028, 0.9901656, 0.9888512, 0.9861774),
    True: (0.9452837, 0.9574293, 0.9625102, 0.9491338, 0.9486380),
}


@pytest.mark.parametrize("extended", REFERENCE)
def test_five_clips_equal_the_reference_to_1e_6(extended):
    found = [measure_stoi(a, b, 16000, extended=extended).value for a, b in five_clips()]
    np.testing.assert_allclose(found, REFERENCE[extended], atol=1e-6)


def test_equal_audio_scores_1_and_stereo_is_mixed():
    clean, noisy = five_clips()[2]
    assert measure_stoi(clean, clean, 16000).value == pytest.approx(1)
    stereo = torch.cat([noisy + 0.1, noisy - 0.1])
    mixed = measure_stoi(clean, stereo, 16000).value
    assert mixed == pytest.approx(measure_stoi(clean, noisy, 16000).value, abs=1e-5)


def test_what_cannot_be_measured_has_a_reason():
    clean, noisy = five_clips()[0]
    short = measure_stoi(clean[:, :6000], noisy[:, :6000], 16000)
    assert math.isnan(short.value) and short.reason == "shorter than 0.4 s, which STOI needs"
    brief = torch.zeros(1, 16000)
    brief[:, 8000:9000] = clean[:, 20000:21000]
    quiet = measure_stoi(brief, brief, 16000)
    assert math.isnan(quiet.value) and "of the reference is louder than silence" in quiet.reason
    assert measure_stoi(clean, 0 * noisy, 16000).reason == "silent"
    assert measure_stoi(0 * clean, noisy, 16000).reason == "the reference: silent"
    assert measure_stoi(clean, noisy * math.nan, 16000).reason == "NaN or infinite samples"
    with pytest.raises(ValueError, match="trim or pad to equal length"):
        measure_stoi(clean, noisy[:, 1:], 16000)
