"""Predicted mean opinion score (MOS), 1 to 5.

Backends: "squim" (as in the paper: torchaudio's SQUIM_SUBJECTIVE, which also needs a clean
recording of other speech) and "distillmos" (weights in its wheel). "auto" uses squim if its
weights can be loaded, and otherwise warns and uses distillmos.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import socket
import warnings
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.extras import require
from tokgen.metrics.signals import RATE, at_16k

__all__ = ["TIMEOUT", "DistillMos", "MosPredictor", "SquimMos", "make_mos"]

TIMEOUT = 5.0  # seconds, of connections that download weights


class MosPredictor(ABC):
    """Predicts MOS. `backend` names library, weights and, for SQUIM, the reference."""

    backend: str
    _model: torch.nn.Module
    _device = torch.device("cpu")

    def to(self, device: str | torch.device) -> None:
        """Move the model to a device."""
        self._model.to(device)
        self._device = torch.device(device)

    def score(self, waveform: Tensor, sample_rate: int) -> float:
        """Return the MOS of [N] or [C, N]; NaN for silence, no samples, or NaN or infinity."""
        return self.score_batch([waveform], sample_rate)[0]

    @torch.inference_mode()
    def score_batch(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[float]:
        """Return the MOS of waveforms of equal length."""
        audio = [at_16k(waveform, sample_rate) for waveform in waveforms]
        usable = [a for a in audio if a is not None and a.any()]
        found: Iterator[float] = iter([])
        if usable:
            found = iter(self._predict(torch.stack(usable).to(self._device)).flatten().tolist())
        return [math.nan if a is None or not a.any() else next(found) for a in audio]

    @abstractmethod
    def _predict(self, audio: Tensor) -> Tensor:
        """Return the MOS [B] of audio [B, N] at 16 kHz."""


class DistillMos(MosPredictor):
    """DistillMOS (Stahl and Gamper 2025), a distilled predictor based on SSL; MIT licence."""

    def __init__(self) -> None:
        import_torchaudio()
        package = require("distillmos")
        with contextlib.redirect_stdout(io.StringIO()):  # its constructor prints
            self._model = package.ConvTransformerSQAModel().eval()
        self.backend = "distillmos (variant 7)"

    def _predict(self, audio: Tensor) -> Tensor:
        return self._model(audio)


class SquimMos(MosPredictor):
    """torchaudio's SQUIM_SUBJECTIVE (Kumar et al. 2023) with one fixed reference.

    Args:
        reference: clean speech [1, N], not one of the scored clips.
        sample_rate: sample rate of the reference in Hz.
    Raises:
        ValueError: the reference is empty or not finite.
    """

    def __init__(self, reference: Tensor, sample_rate: int) -> None:
        audio = at_16k(reference, sample_rate)
        if audio is None:
            raise ValueError("reference of SQUIM is empty or not finite: give clean speech")
        self._reference = audio[None]
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(TIMEOUT)
        try:
            bundle = import_torchaudio().pipelines.SQUIM_SUBJECTIVE
            self._model = bundle.get_model().eval()
        finally:
            socket.setdefaulttimeout(before)
        digest = hashlib.sha256(audio.numpy().tobytes()).hexdigest()
        self.backend = f"squim (SQUIM_SUBJECTIVE, reference {digest[:12]})"

    def _predict(self, audio: Tensor) -> Tensor:
        return self._model(audio, self._reference.to(audio.device).expand(len(audio), -1))


def make_mos(
    name: str = "auto", reference: Tensor | None = None, sample_rate: int = RATE
) -> MosPredictor:
    """Make a predictor: "squim", "distillmos" or "auto".

    Args:
        reference, sample_rate: as in `SquimMos`. Without a reference, "auto" uses distillmos.
    Raises:
        ValueError: unknown name, or "squim" without a reference.
        ModuleNotFoundError: distillmos is missing; the error names the extra.
        OSError: "squim" was asked for by name and its weights cannot be loaded.
    """
    if name == "distillmos":
        return DistillMos()
    if name not in ("auto", "squim"):
        raise ValueError(f"MOS predictor {name!r}: known are auto, squim, distillmos")
    if reference is None:
        if name == "squim":
            raise ValueError("squim compares with clean speech: give a non-matching reference clip")
        problem = "squim (as in the paper) needs a non-matching reference clip, none is given"
    else:
        try:
            return SquimMos(reference, sample_rate)
        except OSError:
            if name == "squim":
                raise
        problem = "the weights of squim (as in the paper) are not in reach"
    warnings.warn(f"MOS: {problem}; using distillmos", stacklevel=2)
    return DistillMos()
