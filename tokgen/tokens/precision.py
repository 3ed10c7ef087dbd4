"""Choose the number format for encoding: faster formats are used only if the codes stay equal.

In a residual quantizer, a rounding difference in one level changes all later levels. So a faster
format is first measured: the share of codes that equal those of float32, for each level.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.codec.continuous import ContinuousCodec

__all__ = [
    "MATCH_FLOOR",
    "PRECISIONS",
    "PrecisionChoice",
    "choose_precision",
    "match_rates",
    "needs_audio",
    "running_in",
]

PRECISIONS = ("float32", "tf32", "bfloat16")
MATCH_FLOOR = 0.995  # smallest share of equal codes, for every level


@dataclass(frozen=True)
class PrecisionChoice:
    """The precision for encoding, and the measurements behind it.

    Attributes:
        precision: one of `PRECISIONS`.
        measured: share of equal codes per level, for each precision that was tried.
        n_frames: number of frames that were measured.
    """

    precision: str = "float32"
    measured: dict[str, list[float]] = field(default_factory=dict)
    n_frames: int = 0

    def __str__(self) -> str:
        lines = [f"encoding in {self.precision}"]
        for precision, rates in self.measured.items():
            shown = " ".join(f"{100 * rate:.2f}" for rate in rates)
            lines.append(f"{precision}: {shown} % of codes per level equal float32")
        return f"{'; '.join(lines)} ({self.n_frames} frames)" if self.measured else lines[0]


@contextmanager
def running_in(precision: str, device: torch.device) -> Iterator[None]:
    """Encode in a precision. "float32" also switches off TensorFloat-32 in convolutions.

    Raises:
        ValueError: the precision is unknown, or it is "tf32" on a CPU.
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
    """Return the share of codes that equal those of float32, per level [K], over all frames.

    Args:
        codec: on the device to measure.
        waveforms: [N] or [1, N] each, at the codec's sample rate.
    """
    found = {}
    for name in dict.fromkeys(("float32", precision)):
        with torch.inference_mode(), running_in(name, codec.device):
            codes = [_all_levels(codec, w.reshape(1, 1, -1))[0].cpu() for w in waveforms]
        found[name] = torch.cat(codes, dim=-1)
    return (found["float32"] == found[precision]).double().mean(-1).tolist()


def _all_levels(codec: Codec, waveform: Tensor) -> Tensor:
    """Return codes [1, K, T] of all levels, whatever rate the codec has."""
    if codec.rate is None:
        return codec.encode(waveform)
    return codec.encode_with_importance(waveform).codes


def needs_audio(codec: Codec | ContinuousCodec, wanted: str) -> bool:
    """Return whether `choose_precision` needs audio to measure on."""
    if isinstance(codec, ContinuousCodec) or wanted == "float32":
        return False
    return not (wanted == "auto" and codec.device.type == "cpu")


def choose_precision(
    codec: Codec | ContinuousCodec, waveforms: Sequence[Tensor], wanted: str = "auto"
) -> PrecisionChoice:
    """Choose the precision to encode in.

    Args:
        codec, waveforms: as for `match_rates`.
        wanted: "auto" or one of `PRECISIONS`. "auto" is float32 on a CPU; on a GPU it is the
            fastest precision whose codes match in at least `MATCH_FLOOR` of every level. Another
            precision is used as it is, with a warning if it matches less. Latents have no codes
            to match: "auto" is float32 for a continuous codec, and others are used as they are.
    Raises:
        ValueError: the precision is unknown, or there is no audio to measure on.
    """
    device = codec.device
    if isinstance(codec, ContinuousCodec):
        chosen = "float32" if wanted == "auto" else wanted
        _check(chosen, device)
        return PrecisionChoice(chosen)
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
        f"{codec.spec.name} in {wanted}: the shares of codes that match float32, by level, are "
        f"{rates}, under {MATCH_FLOOR}; use float32 if codes must equal those of other runs",
        stacklevel=2,
    )
    return PrecisionChoice(wanted, measured, n_frames)


def _check(precision: str, device: torch.device) -> None:
    if precision not in PRECISIONS:
        raise ValueError(f"precision {precision!r} is unknown; use auto, {', '.join(PRECISIONS)}")
    if precision == "tf32" and device.type == "cpu":
        raise ValueError("precision 'tf32' needs a GPU; use float32 or bfloat16")
