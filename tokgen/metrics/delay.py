"""Measure the delay of a codec in samples, by cross-correlation on broadband noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = [
    "LONGEST_SECONDS",
    "SECONDS",
    "WEAK",
    "Delay",
    "align",
    "delay_between",
    "measure_delay",
    "pink_noise",
]

SECONDS = 3.0  # length of the noise
LONGEST_SECONDS = 0.1  # longest delay to look for
WEAK = 0.1  # below this correlation, the output does not follow the noise


@dataclass(frozen=True)
class Delay:
    """Delay of a codec.

    Attributes:
        samples: delay in whole samples; negative if the output is early, 0 if the correlation is
            too weak. Fractions are left out: distorted noise does not show them reliably, and 25
            passes would add them up.
        correlation: correlation of input and output at that delay, -1 to 1.
    """

    samples: int
    correlation: float

    @property
    def is_known(self) -> bool:
        return self.correlation >= WEAK

    def __str__(self) -> str:
        if not self.is_known:
            return "not measurable (the output does not follow noise), taken as 0"
        return f"{self.samples} sample{'' if abs(self.samples) == 1 else 's'}"


def measure_delay(roundtrip: Callable[[Tensor], Tensor], sample_rate: int) -> Delay:
    """Measure the delay of one encoding and decoding.

    Args:
        roundtrip: maps a waveform [1, 1, N] to the same shape.
        sample_rate: Hz.
    """
    noise = pink_noise(round(SECONDS * sample_rate), seed=0)
    output = roundtrip(noise[None, None])[0, 0].detach().cpu()
    return delay_between(noise, output, round(LONGEST_SECONDS * sample_rate))


def delay_between(reference: Tensor, output: Tensor, longest: int) -> Delay:
    """Find the peak of the cross-correlation of [N] and [N] within `longest` samples both ways."""
    a, b = reference.double() - reference.double().mean(), output.double() - output.double().mean()
    energy = float((a @ a) * (b @ b))
    if not (energy > 0 and math.isfinite(energy)):
        return Delay(0, 0.0)
    size = 1 << (len(a) + longest).bit_length()
    spectrum = torch.fft.rfft(b, size) * torch.fft.rfft(a, size).conj()
    products = torch.fft.irfft(spectrum, size)
    window = torch.cat([products[-longest:], products[: longest + 1]])
    peak = int(window.argmax())
    correlation = float(window[peak]) / math.sqrt(energy)
    return Delay(peak - longest if correlation >= WEAK else 0, correlation)


def align(reference: Tensor, output: Tensor, late: int) -> tuple[Tensor, Tensor] | None:
    """Cut [..., N] and [..., N] to the part they share if `output` is `late` samples late.

    Returns None if they share nothing.
    """
    n = reference.shape[-1]
    if abs(late) >= n:
        return None
    if late >= 0:
        return reference[..., : n - late], output[..., late:]
    return reference[..., -late:], output[..., : n + late]


def pink_noise(n: int, seed: int) -> Tensor:
    """Return noise [n] with RMS 0.1 whose power falls by 3 dB per octave, as in speech."""
    white = torch.randn(n, generator=torch.Generator().manual_seed(seed))
    spectrum = torch.fft.rfft(white)
    spectrum = spectrum / torch.arange(1, len(spectrum) + 1).sqrt()
    noise = torch.fft.irfft(spectrum, n)
    return 0.1 * noise / noise.square().mean().sqrt()
