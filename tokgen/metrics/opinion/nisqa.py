"""NISQA v2.0 (Mittag et al. 2021): predicted opinion of speech, 1 to 5, higher is better.

The network is that of torchmetrics, which reads the authors' file nisqa.tar with
`weights_only=True`: tensors are loaded, code is not run. torchmetrics would download the file by
itself; tokgen asks for it instead. Its weights are under CC BY-NC-SA 4.0. `nisqa` is the overall
quality. The network hears up to 48 kHz, so audio is not resampled. The channels of stereo audio are
mixed.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tokgen.extras import require
from tokgen.metrics.measured import Measured, failed
from tokgen.metrics.signals import mix, why_unusable

__all__ = ["SOURCE", "Nisqa", "weights_file"]

SOURCE = "https://github.com/gabrielmittag/NISQA/raw/master/weights/nisqa.tar"


def weights_file() -> Path:
    """Return where torchmetrics looks for the weights."""
    return Path("~/.torchmetrics/NISQA/nisqa.tar").expanduser()


class Nisqa:
    """NISQA of a clip.

    Raises:
        ModuleNotFoundError: torchmetrics, librosa or requests is missing; the error names the
            extra.
        FileNotFoundError: the file of weights is missing; the error says where to get it.
    """

    def __init__(self) -> None:
        for package in ("librosa", "requests"):
            require(package, "nisqa")
        module = require("torchmetrics.functional.audio.nisqa", "nisqa")
        self._measure = module.non_intrusive_speech_quality_assessment
        if not weights_file().is_file():
            raise FileNotFoundError(
                f"nisqa needs the weights of its authors: download {SOURCE} to {weights_file()}"
            )
        self.backend = f"NISQA v2.0 (torchmetrics, {weights_file()})"

    def measure(self, waveform: Tensor, sample_rate: int) -> Measured:
        """Measure a waveform [N] or [C, N]."""
        audio = mix(waveform.detach()).cpu()
        if problem := why_unusable(waveform) or ("" if audio.any() else "silent"):
            return failed(problem)
        try:
            return Measured(float(self._measure(audio, sample_rate)[0]))
        except RuntimeError as error:  # too short or too long
            return failed(f"NISQA failed: {error}")
