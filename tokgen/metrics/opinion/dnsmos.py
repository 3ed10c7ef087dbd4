"""DNSMOS (Reddy et al. 2021, 2022): predicted opinion of noisy speech, 1 to 5; higher.

`dnsmos` is the overall quality of P.835, `dnsmos_sig` and `dnsmos_bak` those of the speech and of
the background, and `dnsmos_p808` the quality of P.808. The networks hear pieces of 9.01 s, one a
second; a shorter clip is repeated. Weights come from the wheel of speechmos. The channels of stereo
audio are mixed, and samples outside [-1, 1] are clipped, as a file would clip them.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tokgen.metrics.measured import Measured, failed
from tokgen.metrics.opinion.onnx import open_session, speechmos_version
from tokgen.metrics.signals import RATE, at_16k, why_unusable

__all__ = ["LENGTH", "NAMES", "Dnsmos"]

LENGTH = 144_160  # samples of a piece, 9.01 s
NAMES = ("dnsmos_sig", "dnsmos_bak", "dnsmos")  # in the order of the network's outputs
_P808 = "dnsmos_p808"
_POLYNOMIALS = np.array(  # of the published model, from raw outputs to opinions: squares first
    [
        [-0.08397278, 1.22083953, 0.0052439],
        [-0.13166888, 1.60915514, -0.39604546],
        [-0.06766283, 1.11546468, 0.04602535],
    ]
)
_FFT, _HOP, _BANDS = 321, 160, 120


class Dnsmos:
    """DNSMOS of a clip.

    Args:
        metrics: names to measure, of `NAMES` and "dnsmos_p808".
    Raises:
        ModuleNotFoundError: a package is missing; the error names the extra.
    """

    def __init__(self, metrics: tuple[str, ...] = (*NAMES, _P808)) -> None:
        self.metrics = metrics
        wanted = set(metrics)
        self._p835 = open_session("dnsmos_models/sig_bak_ovr.onnx") if wanted & {*NAMES} else None
        self._p808 = open_session("dnsmos_models/model_v8.onnx") if _P808 in wanted else None
        self.backend = f"DNSMOS (weights of speechmos {speechmos_version()}, 16 kHz)"
        self._window = torch.hann_window(_FFT)
        self._bank = _mel_bank()

    def measure(self, waveform: Tensor, sample_rate: int) -> dict[str, Measured]:
        """Measure a waveform [N] or [C, N]."""
        audio = at_16k(waveform, sample_rate)
        if audio is None or not audio.any():
            return dict.fromkeys(self.metrics, failed(why_unusable(waveform) or "silent"))
        pieces = _cut(audio.clamp(-1, 1))
        found: dict[str, float] = {}
        if self._p835 is not None:
            [raw] = self._p835.run(None, {"input_1": pieces.numpy()})  # [pieces, 3]
            powers = raw.astype(np.float64)[..., None] ** np.arange(2, -1, -1)
            opinions = (powers * _POLYNOMIALS).sum(-1).mean(0)
            found |= dict(zip(NAMES, opinions.tolist(), strict=True))
        if self._p808 is not None:
            [raw] = self._p808.run(None, {"input_1": self._log_mel(pieces).numpy()})
            found[_P808] = float(raw.astype(np.float64).mean())
        return {name: Measured(found[name]) for name in self.metrics}

    def _log_mel(self, pieces: Tensor) -> Tensor:
        """Return log mel powers [B, 900, 120] of pieces, 40 dB below the loudest as 0."""
        spectra = torch.stft(
            pieces[:, :-_HOP],
            _FFT,
            _HOP,
            window=self._window,
            pad_mode="constant",
            return_complex=True,
        )
        mel = spectra.abs().square().mT @ self._bank
        decibels = 10 * mel.clamp(min=1e-10).log10()
        decibels = decibels - decibels.amax((1, 2), keepdim=True)
        return (decibels.clamp(min=-80) + 40) / 40


def _cut(audio: Tensor) -> Tensor:
    """Cut audio [N], repeated if it is short, into pieces [B, LENGTH] that begin every second."""
    while len(audio) < LENGTH:
        audio = torch.cat([audio, audio])
    n = max(1, len(audio) // RATE - 9)  # as published; the last second may stay unheard
    return torch.stack([audio[i * RATE : i * RATE + LENGTH] for i in range(n)])


def _mel_bank() -> Tensor:
    """Return Slaney's mel bands [161, 120], each of area 1.

    The spectrum has an odd length, so its highest bin lies below half the sample rate. torchaudio's
    bands would not fit it.
    """

    def hertz(mel: np.ndarray) -> np.ndarray:  # 200 / 3 Hz a step below 1 kHz, then logarithmic
        return np.where(mel < 15, mel * 200 / 3, 1000 * np.exp((mel - 15) * np.log(6.4) / 27))

    top = 15 + 27 * np.log(RATE / 2 / 1000) / np.log(6.4)
    edges = hertz(np.linspace(0, top, _BANDS + 2))
    bins = np.arange(_FFT // 2 + 1)[:, None] * RATE / _FFT
    up = (bins - edges[:-2]) / np.diff(edges)[:-1]
    down = (edges[2:] - bins) / np.diff(edges)[1:]
    bands = np.clip(np.minimum(up, down), 0, None) * 2 / (edges[2:] - edges[:-2])
    return torch.from_numpy(bands).float()
