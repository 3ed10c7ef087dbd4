"""UTMOS22, strong learner (Saeki et al. 2022): predicted opinion of speech, 1 to 5; higher.

The network is that of `utmos-pytorch`, which has no need of fairseq. Its weights, converted from
those of the authors, come from the hub or from a file. They are a state dict in PyTorch's format,
which is read with `weights_only=True`: tensors are loaded, code is not run. All must fit.
"""

from __future__ import annotations

import math
import pickle
from pathlib import Path

import torch
from torch import Tensor

from tokgen.extras import require
from tokgen.metrics.backends import find_model
from tokgen.metrics.mos import MosPredictor

__all__ = ["FILE", "TRAINING_ONLY", "UTMOS", "Utmos"]

UTMOS = "Blinorot/UTMOS-PyTorch"
FILE = "utmos_state_dict.pt"
TRAINING_ONLY = (".quantizer.", ".project_q.", ".target_glu.", ".final_proj.")  # of wav2vec2
_LISTENER = 288  # of the authors' own scores
_MIN_SAMPLES = 400  # one frame of wav2vec2


class Utmos(MosPredictor):
    """UTMOS of 16 kHz audio. Batches hold clips of equal length, so nothing is padded.

    Args:
        source: hub id, folder with `FILE`, or a file.
        local_files_only: load a hub id only from the cache.
    Raises:
        ModuleNotFoundError: utmos-pytorch is missing; the error names the extra.
        OSError: the weights are not in reach, or the file is damaged.
        ValueError: the weights are of another network.
    """

    def __init__(self, source: str = UTMOS, *, local_files_only: bool = False) -> None:
        network = require("utmos_pytorch.utmos_torch", "quality").UTMOSModel
        path = Path(source)
        if path.is_dir():
            path = path / FILE
        elif not path.is_file():
            path = find_model(source, (FILE,), local_files_only=local_files_only) / FILE
            source = f"{source}@{path.parent.name[:12]}"
        try:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        except (pickle.UnpicklingError, RuntimeError, EOFError, OSError) as error:
            raise OSError(f"{path} is no file of weights alone: {error}") from error
        self._model = network().eval().requires_grad_(False)
        try:
            missing, more = self._model.load_state_dict(weights, strict=False)
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} has weights of another network: {error}") from error
        more = [name for name in more if not any(part in name for part in TRAINING_ONLY)]
        if missing or more:
            raise ValueError(
                f"{path} has weights of another network: {len(missing)} are missing "
                f"({', '.join(missing[:2])}), {len(more)} unknown ({', '.join(more[:2])})"
            )
        self.backend = f"utmos22 strong ({source})"

    def score(self, waveform: Tensor, sample_rate: int) -> float:
        """Return the MOS of [N] or [C, N]; NaN also for less than 25 ms."""
        if waveform.shape[-1] < _MIN_SAMPLES * sample_rate / 16_000:
            return math.nan
        return super().score(waveform, sample_rate)

    def _predict(self, audio: Tensor) -> Tensor:
        domain = torch.zeros(len(audio), dtype=torch.int, device=audio.device)
        listener = torch.full_like(domain, _LISTENER)
        frames = self._model(audio[:, None], domain, listener)  # [B, frames, 1] in [-1, 1]
        return frames.mean((1, 2)) * 2 + 3
