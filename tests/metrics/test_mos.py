"""MOS: predictors by name and fallbacks."""

from __future__ import annotations

import math

import pytest
import torch

from makers.audio import make_tone
from makers.paths import ALLISON
from tokgen.corpus.listed import open_corpus
from tokgen.metrics.mos import SquimMos, make_mos

CLEAN = make_tone(2.0, 0)
NOISE = torch.randn(CLEAN.shape, generator=torch.Generator().manual_seed(1))


def test_auto_without_a_reference_warns():
    with pytest.warns(UserWarning, match="none is given; using distillmos"):
        assert make_mos("auto").backend.startswith("distillmos")


def test_squim_with_random_weights(monkeypatch):
    from tokgen.audio.torchaudio_shim import import_torchaudio

    torchaudio = import_torchaudio()
    torch.manual_seed(0)
    network = torchaudio.models.squim_subjective_base()
    bundle = torchaudio.pipelines.SQUIM_SUBJECTIVE
    monkeypatch.setattr(type(bundle), "get_model", lambda self: network)
    predictor = make_mos("auto", make_tone(1.0, 9), 16000)
    assert isinstance(predictor, SquimMos)
    assert predictor.backend.startswith("squim (SQUIM_SUBJECTIVE, reference ")
    assert math.isfinite(predictor.score(CLEAN, 16000))
    assert math.isnan(predictor.score(torch.zeros(1, 16000), 16000))


def test_auto_falls_back_with_a_warning(monkeypatch):
    from tokgen.audio.torchaudio_shim import import_torchaudio

    def unreachable(self):
        raise OSError("no route")

    bundle = import_torchaudio().pipelines.SQUIM_SUBJECTIVE
    monkeypatch.setattr(type(bundle), "get_model", unreachable)
    with pytest.warns(UserWarning, match="using distillmos"):
        predictor = make_mos("auto", CLEAN, 16000)
    assert predictor.backend.startswith("distillmos")
    with pytest.raises(OSError, match="no route"):
        make_mos("squim", CLEAN, 16000)
    quiet, noisy = (predictor.score(CLEAN + a * NOISE, 16000) for a in (0.0, 0.3))
    assert 1 <= noisy < quiet <= 5


def test_unknown_predictors_are_refused():
    with pytest.raises(ValueError, match="known are auto, squim, distillmos"):
        make_mos("nisqa")
    with pytest.raises(ValueError, match="non-matching reference"):
        make_mos("squim")


def test_mos_falls_with_noise():
    speech = next(iter(open_corpus(ALLISON, split="test").utterances(16000, rejected=[]))).waveform
    predictor = make_mos("distillmos")
    noise = torch.randn(speech.shape, generator=torch.Generator().manual_seed(0))
    falling = [predictor.score(speech + a * noise, 16000) for a in (0, 0.01, 0.1)]
    assert falling == sorted(falling, reverse=True) and falling[0] > 3.5 > falling[2] + 1
