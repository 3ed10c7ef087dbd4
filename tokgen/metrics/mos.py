"""Predicted mean opinion score, 1 to 5.

Backends: "squim" (the paper's: torchaudio's SQUIM_SUBJECTIVE, which listens to a clean
recording of other speech beside the clip) and "distillmos" (weights in its wheel). "auto" takes
the paper's where its weights can be had and says so where it cannot.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
import socket
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.extras import require
from tokgen.metrics.signals import RATE, at_16k


class MosPredictor(Protocol):
    """Predicts a MOS; `backend` names library, weights and, for SQUIM, the reference."""

    backend: str

    def score(self, waveform: Tensor, sample_rate: int) -> float:
        """waveform [N] or [1, N] -> MOS, or NaN for silence, no samples, NaN or infinity."""
        ...

    def score_batch(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[float]:
        """`score` of each of some waveforms of equal length, at once."""
        ...

    def to(self, device: str | torch.device) -> None:
        """Compute there."""
        ...


class DistillMos:
    """DistillMOS (Stahl and Gamper 2025): a distilled SSL-based predictor, MIT."""

    def __init__(self) -> None:
        import_torchaudio()
        package = require("distillmos")
        with contextlib.redirect_stdout(io.StringIO()):  # its constructor prints
            self._model = package.ConvTransformerSQAModel().eval()
        self._device = torch.device("cpu")
        self.backend = "distillmos (variant 7)"

    def to(self, device: str | torch.device) -> None:
        self._model.to(device)
        self._device = torch.device(device)

    def score(self, waveform: Tensor, sample_rate: int) -> float:
        return self.score_batch([waveform], sample_rate)[0]

    def score_batch(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[float]:
        return _of_batch(self._predict, waveforms, sample_rate)

    @torch.inference_mode()
    def _predict(self, audio: Tensor) -> Tensor:
        return self._model(audio.to(self._device))


class SquimMos:
    """torchaudio's SQUIM_SUBJECTIVE (Kumar et al. 2023) with one fixed reference.

    Args:
        reference: clean speech [1, N] that is none of the scored clips.
        sample_rate: of the reference, Hz.
        timeout: seconds for connections while the weights download.
    Raises:
        ValueError: the reference is empty or not finite.
    """

    def __init__(self, reference: Tensor, sample_rate: int, timeout: float = 5.0) -> None:
        audio = at_16k(reference, sample_rate)
        if audio is None:
            raise ValueError("reference of SQUIM is empty or not finite: give clean speech")
        self._reference = audio[None]
        before = socket.getdefaulttimeout()
        socket.setdefaulttimeout(timeout)
        try:
            bundle = import_torchaudio().pipelines.SQUIM_SUBJECTIVE
            self._model = bundle.get_model().eval()
        finally:
            socket.setdefaulttimeout(before)
        digest = hashlib.sha256(audio.numpy().tobytes()).hexdigest()
        self.backend = f"squim (SQUIM_SUBJECTIVE, reference {digest[:12]})"

    def to(self, device: str | torch.device) -> None:
        self._model.to(device)
        self._reference = self._reference.to(device)

    def score(self, waveform: Tensor, sample_rate: int) -> float:
        return self.score_batch([waveform], sample_rate)[0]

    def score_batch(self, waveforms: Sequence[Tensor], sample_rate: int) -> list[float]:
        return _of_batch(self._predict, waveforms, sample_rate)

    @torch.inference_mode()
    def _predict(self, audio: Tensor) -> Tensor:
        reference = self._reference.expand(len(audio), -1)
        return self._model(audio.to(reference.device), reference)


def _of_batch(
    predict: Callable[[Tensor], Tensor], waveforms: Sequence[Tensor], sample_rate: int
) -> list[float]:
    """What `predict` [B, N] -> [B] says of the waveforms that hold something; NaN of others."""
    audio = [at_16k(waveform, sample_rate) for waveform in waveforms]
    usable = [a for a in audio if a is not None and a.any()]
    found = iter(predict(torch.stack(usable)).flatten().tolist() if usable else [])
    return [math.nan if a is None or not a.any() else next(found) for a in audio]


def make_mos(
    name: str = "auto", reference: Tensor | None = None, sample_rate: int = RATE
) -> MosPredictor:
    """A predictor by name: "squim", "distillmos" or "auto".

    Args:
        reference: clean speech [1, N] for SQUIM; without one "auto" takes distillmos and warns.
        sample_rate: of the reference, Hz.
    Raises:
        ValueError: unknown name, or "squim" without a reference.
        ModuleNotFoundError: distillmos is missing, naming the extra.
        OSError: "squim" asked for by name and its weights are not in reach.
    """
    if name == "distillmos":
        return DistillMos()
    if name not in ("auto", "squim"):
        raise ValueError(f"MOS predictor {name!r}: known are auto, squim, distillmos")
    if reference is None:
        if name == "squim":
            raise ValueError("squim compares with clean speech: give a non-matching reference clip")
        warnings.warn(
            "MOS: squim (the paper's) needs a non-matching reference clip, none is given; "
            "using distillmos",
            stacklevel=2,
        )
        return DistillMos()
    try:
        return SquimMos(reference, sample_rate)
    except OSError:
        if name == "squim":
            raise
    warnings.warn(
        "MOS: the weights of SQUIM_SUBJECTIVE (the paper's) are not in reach; using distillmos",
        stacklevel=2,
    )
    return DistillMos()
