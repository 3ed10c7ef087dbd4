"""Faster arithmetic for encoding, taken only where the codes stay what they are.

A residual quantizer repeats every rounding of its first levels in all that follow, so faster
arithmetic is measured before it is used: the share of codes that float32 gives too, level by level.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokgen.codec.base import Codec

PRECISIONS = ("float32", "tf32", "bfloat16")
MATCH_FLOOR = 0.995  # of the codes of every level


@dataclass(frozen=True)
class PrecisionChoice:
    """What encoding runs in.

    Attributes:
        precision: of `PRECISIONS`.
        measured: precision -> share of equal codes per level, of all that were tried.
        n_frames: behind those shares.
    """

    precision: str = "float32"
    measured: dict[str, list[float]] = field(default_factory=dict)
    n_frames: int = 0

    def __str__(self) -> str:
        lines = [f"encoding in {self.precision}"]
        for precision, rates in self.measured.items():
            shown = " ".join(f"{100 * rate:.2f}" for rate in rates)
            lines.append(f"{precision}: {shown} % of codes per level as in float32")
        return f"{'; '.join(lines)} ({self.n_frames} frames)" if self.measured else lines[0]


@contextmanager
def running_in(precision: str, device: torch.device) -> Iterator[None]:
    """Encode in `precision`; "float32" switches TensorFloat-32 off, which torch has on in
    convolutions.

    Raises:
        ValueError: unknown precision, or TensorFloat-32 without a GPU.
    """
    _check(precision, device)
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    fast = precision != "float32"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = fast
    try:
        with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
            yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def match_rates(codec: Codec, waveforms: Sequence[Tensor], precision: str) -> list[float]:
    """Share of codes that are as in float32, per level [K], over all frames.

    Args:
        codec: on the device in question.
        waveforms: [N] or [1, N] each, at the codec's rate.
        precision: of `PRECISIONS`.
    """
    found = {}
    for name in dict.fromkeys(("float32", precision)):
        with torch.inference_mode(), running_in(name, codec.device):
            codes = [codec.encode(w.reshape(1, 1, -1))[0].cpu() for w in waveforms]
        found[name] = torch.cat(codes, dim=-1)
    return (found["float32"] == found[precision]).double().mean(-1).tolist()


def needs_audio(codec: Codec, wanted: str) -> bool:
    """Whether `choose_precision` has something to measure."""
    return wanted != "float32" and not (wanted == "auto" and codec.device.type == "cpu")


def choose_precision(
    codec: Codec, waveforms: Sequence[Tensor], wanted: str = "auto"
) -> PrecisionChoice:
    """The precision to encode in.

    Args:
        codec: on the device in question.
        waveforms: audio to measure on, as in `match_rates`.
        wanted: of `PRECISIONS`, which is taken, with a warning where a level matches in less than
            `MATCH_FLOOR`; or "auto": float32 on a CPU, on a GPU the fastest that reaches it.
    Raises:
        ValueError: unknown precision, or none to measure on.
    """
    device = codec.device
    if not needs_audio(codec, wanted):
        return PrecisionChoice()
    candidates = ("bfloat16", "tf32") if wanted == "auto" else (wanted,)
    for name in candidates:
        _check(name, device)
    if not waveforms:
        raise ValueError(f"precision {wanted!r}: there is no audio to measure it on; use float32")
    n_frames = sum(codec.spec.n_frames(w.shape[-1]) for w in waveforms)
    measured = {}
    for name in candidates:
        measured[name] = match_rates(codec, waveforms, name)
        if min(measured[name]) >= MATCH_FLOOR:
            return PrecisionChoice(name, measured, n_frames)
    if wanted == "auto":
        return PrecisionChoice("float32", measured, n_frames)
    rates = ", ".join(f"{rate:.4f}" for rate in measured[wanted])
    warnings.warn(
        f"{codec.spec.name} in {wanted}: codes per level match float32 in {rates}, under "
        f"{MATCH_FLOOR}; use float32 where codes must be those of everybody else",
        stacklevel=2,
    )
    return PrecisionChoice(wanted, measured, n_frames)


def _check(precision: str, device: torch.device) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r}: known are auto, {', '.join(PRECISIONS)}")
    if precision == "tf32" and device.type == "cpu":
        raise ValueError("precision 'tf32': a CPU has none; use float32 or bfloat16")
