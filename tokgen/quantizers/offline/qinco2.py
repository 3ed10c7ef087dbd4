"""QINCo2 as an offline quantizer: `tokgen.quantizers.offline.qinco2_network` with its training.

quantizer = Qinco2(dim=64, n_codebooks=8, codebook_size=256, preset="S")
quantizer.fit(frames)                        # as `QincoTraining` starts with
codes = quantizer.encode(frames, beam=16)
"""

from __future__ import annotations

from torch import Tensor

from tokgen.quantizers.offline.qinco2_network import Qinco2Network
from tokgen.quantizers.offline.qinco2_training import train_qinco2
from tokgen.quantizers.offline.settings import QincoTraining

__all__ = ["Qinco2"]


class Qinco2(Qinco2Network):
    """QINCo2. `train_qinco2` trains it with other settings, and continues after a kill.

    Args:
        dim, n_codebooks, codebook_size, preset, n_blocks, embedding_dim, hidden_dim, preselect: as
            for `Qinco2Network`.
    """

    model_type = "qinco2"

    def _fit(self, frames: Tensor, seed: int, progress: bool) -> None:
        train_qinco2(self, frames, QincoTraining(seed=seed), progress=progress)
