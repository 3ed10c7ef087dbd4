"""Broken audio is a failure of every metric."""

from __future__ import annotations

import math

import pytest
import torch

from makers.audio import make_tone
from tokgen.metrics.asr.base import RecognitionError
from tokgen.metrics.asr.names import make_recogniser
from tokgen.metrics.mos import make_mos
from tokgen.metrics.pesq import pesq_wb
from tokgen.metrics.si_sdr import si_sdr
from tokgen.metrics.signals import at_16k

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


def test_metrics_of_speech_hear_the_mean_of_the_channels():
    noise = 0.05 * torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1))
    stereo = torch.cat([CLEAN + noise, CLEAN - 3 * noise])
    mean = stereo.mean(0, keepdim=True)
    judge = make_mos("distillmos")
    assert judge.score(stereo, 16000) == judge.score(mean, 16000) != judge.score(stereo[:1], 16000)
    assert pesq_wb(CLEAN, stereo, 16000) == pesq_wb(CLEAN, mean, 16000)
    assert at_16k(stereo, 16000).equal(mean[0])
