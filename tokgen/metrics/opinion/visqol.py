"""ViSQOL v3 (Chinen et al. 2020) through `visqol-python`: MOS-LQO, 1 to 5, higher is better.

"visqol" is the mode for speech at 16 kHz with the lattice network, the default of Google's program.
Without ai-edge-litert, visqol-python would use a polynomial that scores bad speech higher. tokgen
refuses that. "visqol_audio" is the mode for any audio at 48 kHz with a support
vector regression. The channels of stereo audio are mixed.
"""

from __future__ import annotations

import os
from typing import Any

from torch import Tensor

from tokgen.audio.quiet import quiet
from tokgen.audio.resampling import resample
from tokgen.extras import require
from tokgen.metrics.measured import Measured, failed, why_no_pair
from tokgen.metrics.signals import mix

__all__ = ["MODES", "Visqol"]

MODES = {"visqol": ("speech", 16_000), "visqol_audio": ("audio", 48_000)}  # by metric


class Visqol:
    """ViSQOL in one mode.

    Args:
        metric: "visqol" or "visqol_audio".
    Raises:
        ModuleNotFoundError: a package is missing, such as ai-edge-litert for speech; the error
            names the extra.
    """

    def __init__(self, metric: str = "visqol") -> None:
        self._mode, self.rate = MODES[metric]
        if self._mode == "speech":
            require("ai_edge_litert", "quality")
        package = require("visqol", "quality")
        how = "lattice" if self._mode == "speech" else "SVR"
        self.backend = f"visqol-python {package.__version__} ({self._mode}, {how}, "
        self.backend += f"{self.rate // 1000} kHz)"
        self._by_process: dict[int, Any] = {}

    def measure(self, reference: Tensor, estimate: Tensor, sample_rate: int) -> Measured:
        """Measure the quality of `estimate` compared with `reference`.

        Args:
            reference, estimate: [N] or [C, N] of equal length.
            sample_rate: Hz.
        Raises:
            ValueError: the lengths differ.
        """
        if problem := why_no_pair(reference, estimate):
            return failed(problem)
        a, b = (
            resample(mix(w.detach()).cpu(), sample_rate, self.rate).double().numpy()
            for w in (reference, estimate)
        )
        try:
            return Measured(float(self._judge.measure_from_arrays(a, b, self.rate).moslqo))
        except (ValueError, RuntimeError, IndexError) as error:  # audio without usable patches
            return failed(f"ViSQOL failed: {error}")

    @property
    def _judge(self) -> Any:
        """The judge of this process: a fork does not inherit the threads of its parent."""
        if os.getpid() not in self._by_process:
            judge = require("visqol", "quality").VisqolApi()
            with quiet():  # its runtime prints
                judge.create(mode=self._mode, use_lattice_model=self._mode == "speech")
            self._by_process[os.getpid()] = judge
        return self._by_process[os.getpid()]
