"""Mel distance and multi-resolution STFT distance, as in the evaluation of DAC: from 0, lower.

Both compare magnitude spectra with windows of 2048 and 512 samples and hops of a quarter. For each
window, the mean absolute difference of magnitudes and that of their squares' log10 are added; then
the windows are added. Mel spectra have 150 and 80 bands (Slaney's). Magnitudes are at least 1e-5
before the logarithm. Spectra depend on the sample rate, so only distances at equal rates can be
compared. The channels of stereo audio are mixed.
"""

from __future__ import annotations

import warnings
from functools import lru_cache

import torch
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.metrics.measured import Measured, failed, why_no_pair
from tokgen.metrics.signals import mix

__all__ = ["BACKENDS", "FLOOR", "MELS", "WINDOWS", "measure_spectra"]

WINDOWS = (2048, 512)  # samples
MELS = (150, 80)
FLOOR = 1e-5
BACKENDS = {
    "mel": "tokgen (DAC's mel distance, windows 2048 and 512, bands 150 and 80)",
    "stft": "tokgen (DAC's STFT distance, windows 2048 and 512)",
}


def measure_spectra(reference: Tensor, estimate: Tensor, sample_rate: int) -> dict[str, Measured]:
    """Measure the distances "mel" and "stft" of two waveforms.

    Args:
        reference, estimate: [N] or [C, N] of equal length, N above half the longest window.
        sample_rate: Hz.
    Raises:
        ValueError: the lengths differ.
    """
    problem = why_no_pair(reference, estimate)
    n, least = reference.shape[-1], WINDOWS[0] // 2 + 1
    if not problem and n < least:
        problem = f"{n} samples, but the longest window needs {least}"
    if problem:
        return dict.fromkeys(BACKENDS, failed(problem))
    pair = torch.stack([mix(w.detach()).cpu() for w in (reference, estimate)])
    total = dict.fromkeys(BACKENDS, 0.0)
    for window, n_mels in zip(WINDOWS, MELS, strict=True):
        spectrum = torch.stft(
            pair, window, window // 4, window=torch.hann_window(window), return_complex=True
        ).abs()
        mels = torch.einsum("bft,fm->bmt", spectrum, _mel_bank(window, n_mels, sample_rate))
        for name, magnitudes in (("mel", mels), ("stft", spectrum)):
            total[name] += _distance(*magnitudes)
    return {name: Measured(value) for name, value in total.items()}


def _distance(a: Tensor, b: Tensor) -> float:
    """Return the mean difference of magnitudes plus that of the logarithms of their squares."""
    logs = (a.clamp(min=FLOOR).square().log10() - b.clamp(min=FLOOR).square().log10()).abs().mean()
    return float((a - b).abs().mean() + logs)


@lru_cache(maxsize=16)
def _mel_bank(window: int, n_mels: int, sample_rate: int) -> Tensor:
    """Return the mel bands [window // 2 + 1, n_mels]."""
    make = import_torchaudio().functional.melscale_fbanks
    with warnings.catch_warnings():  # low bands of many have no bins
        warnings.filterwarnings("ignore", "At least one mel filterbank")
        return make(window // 2 + 1, 0.0, sample_rate / 2, n_mels, sample_rate, "slaney", "slaney")
