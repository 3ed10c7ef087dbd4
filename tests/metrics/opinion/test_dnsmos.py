"""DNSMOS and PLCMOS: equal to speechmos on five clips, and what cannot be measured."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest
import torch

from makers.audio import make_tone
from makers.speech import five_clips
from tokgen.metrics.opinion.dnsmos import Dnsmos
from tokgen.metrics.opinion.plcmos import Plcmos

# speechmos 0.0.1.1 (dnsmos.run, and plcmos.run after numpy.random.seed(0)) on makers.speech.
REFERENCE = {
    "dnsmos_sig": (3.497675, 3.417598, 3.453937, 3.50933, 3.533942),
    "dnsmos_bak": (2.950551, 2.389244, 2.599784, 2.733106, 2.057705),
    "dnsmos": (2.569173, 2.301882, 2.397819, 2.513385, 2.226046),
    "dnsmos_p808": (2.927123, 2.949852, 2.891855, 2.977378, 3.034228),
}
PLCMOS = (3.132943, 3.513013, 3.384816, 3.647282, 3.737656)


def test_five_clips_equal_the_reference_to_1e_3():
    judge = Dnsmos()
    found = [judge.measure(noisy, 16000) for _, noisy in five_clips()]
    for name, values in REFERENCE.items():
        np.testing.assert_allclose([f[name].value for f in found], values, atol=1e-3)
    listeners = Plcmos()
    heard = [listeners.measure(noisy, 16000).value for _, noisy in five_clips()]
    np.testing.assert_allclose(heard, PLCMOS, atol=1e-3)


def test_long_audio_is_heard_in_pieces_and_parts_can_be_chosen():
    long = make_tone(12.5, 0)
    judge = Dnsmos(("dnsmos",))
    assert list(judge.measure(long, 16000)) == ["dnsmos"]
    pieces = [long[:, i * 16000 : i * 16000 + 144160] for i in range(3)]
    mean = np.mean([judge.measure(piece, 16000)["dnsmos"].value for piece in pieces])
    assert judge.measure(long, 16000)["dnsmos"].value == pytest.approx(mean, abs=1e-5)


def test_what_cannot_be_measured_has_a_reason(monkeypatch):
    judge, listeners = Dnsmos(("dnsmos", "dnsmos_p808")), Plcmos()
    for audio, reason in (
        (torch.zeros(1, 9000), "silent"),
        (torch.zeros(1, 0), "no samples"),
        (make_tone(1.0, 0) * math.nan, "NaN or infinite samples"),
    ):
        found = [*judge.measure(audio, 16000).values(), listeners.measure(audio, 16000)]
        assert all(math.isnan(m.value) and m.reason == reason for m in found)
    loud = judge.measure(40 * make_tone(1.0, 0), 16000)["dnsmos"]
    assert 0.5 < loud.value < 5  # clipped, as a file would be
    monkeypatch.setitem(sys.modules, "speechmos", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'tokgen\[quality\]'"):
        Dnsmos()
