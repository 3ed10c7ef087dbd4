"""Broken audio is a failure of every metric."""

from __future__ import annotations

import math

import pytest
import torch

from makers.audio import make_tone
from tokgen.metrics.cer import (
    RecognitionError,
    make_recogniser,
)
from tokgen.metrics.mos import make_mos
from tokgen.metrics.pesq import pesq_wb
from tokgen.metrics.si_sdr import si_sdr

CLEAN = make_tone(2.0, 0)
BROKEN = {
    "nan": torch.where(torch.arange(32000) == 99, math.nan, CLEAN),
    "infinity": torch.where(torch.arange(32000) == 99, math.inf, CLEAN),
    "no samples": CLEAN[:, :0],
}


@pytest.mark.parametrize("kind", BROKEN)
def test_broken_audio_fails_in_every_metric(kind):
    broken = BROKEN[kind]
    clean = CLEAN[:, : broken.shape[-1]]
    for reference, estimate in ((clean, broken), (broken, clean)):
        assert math.isnan(pesq_wb(reference, estimate, 16000))
        assert math.isnan(si_sdr(reference, estimate))
    assert math.isnan(make_mos("distillmos").score(broken, 16000))
    with pytest.raises(RecognitionError, match=r"no samples|NaN or infinite samples"):
        make_recogniser("moonshine").transcribe(broken, 16000)
