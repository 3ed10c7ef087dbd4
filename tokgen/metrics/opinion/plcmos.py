"""PLCMOS v2 (Diener et al. 2023): predicted opinion of speech with lost packets, 1 to 5, higher.

The network also gets a random vector that stands for a listener. The value is the mean over 15
listeners, as published; tokgen draws them once, so equal audio has equal values. Weights come from
the wheel of speechmos. The channels of stereo audio are mixed.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from tokgen.metrics.measured import Measured, failed
from tokgen.metrics.opinion.onnx import open_session, speechmos_version
from tokgen.metrics.signals import at_16k, why_unusable

__all__ = ["LISTENERS", "Plcmos"]

LISTENERS = 15
_SIZE, _HOP = 512, 256


class Plcmos:
    """PLCMOS of a clip.

    Raises:
        ModuleNotFoundError: a package is missing; the error names the extra.
    """

    def __init__(self) -> None:
        self._session = open_session("plcmos_models/plcmos_v2.onnx")
        self.backend = (
            f"PLCMOS v2 (weights of speechmos {speechmos_version()}, 16 kHz, "
            f"{LISTENERS} listeners of seed 0)"
        )
        drawn = np.random.RandomState(0).normal(size=(LISTENERS, 1, 64))
        self._listeners = drawn.astype(np.float32)

    def measure(self, waveform: Tensor, sample_rate: int) -> Measured:
        """Measure a waveform [N] or [C, N]."""
        audio = at_16k(waveform, sample_rate)
        if audio is None or not audio.any():
            return failed(why_unusable(waveform) or "silent")
        spectrum = _log_powers(audio.clamp(-1, 1).numpy())[None, None]
        heard = [
            float(self._session.run(None, {"degraded_audio": spectrum, "rater_embed": listener})[0])
            for listener in self._listeners
        ]
        return Measured(float(np.mean(heard)))


def _log_powers(audio: np.ndarray) -> np.ndarray:
    """Return logarithms of powers [frames, 257] of audio [N], divided by 20.

    The first frame ends after one hop. Powers of 0 are 120 dB below the smallest other power.
    """
    n_frames = -(-(len(audio) + _HOP) // _HOP)
    padded = np.zeros((n_frames - 1) * _HOP + _SIZE)
    padded[_HOP : _HOP + len(audio)] = audio
    frames = np.lib.stride_tricks.sliding_window_view(padded, _SIZE)[::_HOP]
    powers = np.abs(np.fft.rfft(frames * np.hamming(_SIZE + 1)[:-1])) ** 2
    loud = powers > 0
    floor = np.log(powers[loud].min()) - 12 * np.log(10)
    logs = np.where(loud, np.log(powers, where=loud, out=np.zeros_like(powers)), floor)
    return (logs / 20).astype(np.float32)
