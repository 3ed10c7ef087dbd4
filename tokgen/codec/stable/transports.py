"""Changes of audio on its way to the encoder: rounding, gain, resampling, MP3, Opus.

`make_transport` returns a function of audio [B, 1, n]. The gradient passes through it unchanged
where the step itself has none, as in rounding or MP3.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from tokgen.audio.resampling import resample
from tokgen.codec.stable.settings import parse_transport
from tokgen.codec.windows import fit_length

__all__ = ["Transport", "make_transport", "round_to_16_bits"]

Transport = Callable[[Tensor, torch.Generator], Tensor]


def make_transport(name: str, sample_rate: int) -> Transport:
    """Return the function of a name in `StableDecoding.robust_to`.

    int16 rounds to 16 bits. dither does so with triangular noise of 2 steps (TPDF). gain:DB changes
    the level by up to DB either way, resample:HZ goes to another rate and back, and mp3:KBPS and
    opus:KBPS encode and decode. What follows a gain or a lossy step is not rounded.

    Args:
        sample_rate: of the audio in Hz.
    """
    kind, value = parse_transport(name)
    if kind == "int16":
        return lambda audio, _: _through(audio, round_to_16_bits(audio.detach()))
    if kind == "dither":
        return _dither
    if kind == "gain":
        return lambda audio, noise: audio * _gain(value, audio[:, :, :1], noise)
    change = (
        _resampled(sample_rate, int(value))
        if kind == "resample"
        else _lossy(kind, value, sample_rate)
    )

    def run(audio: Tensor, _: torch.Generator) -> Tensor:
        return _through(audio, change(audio.detach()))

    return run


def round_to_16_bits(audio: Tensor) -> Tensor:
    """Round audio to 16-bit steps, and clip it to what 16 bits hold."""
    return (audio * 32768).round().clamp(-32768, 32767) / 32768


def _through(audio: Tensor, changed: Tensor) -> Tensor:
    return audio + (changed - audio).detach()


def _uniform(like: Tensor, noise: torch.Generator) -> Tensor:
    return torch.rand(like.shape, generator=noise).to(like)


def _gain(most_db: float, like: Tensor, noise: torch.Generator) -> Tensor:
    """Draw factors of up to `most_db` dB in either direction."""
    return 10 ** (most_db / 20 * (2 * _uniform(like, noise) - 1))


def _dither(audio: Tensor, noise: torch.Generator) -> Tensor:
    triangular = (_uniform(audio, noise) - _uniform(audio, noise)) / 32768
    return _through(audio, round_to_16_bits(audio.detach() + triangular))


def _resampled(sample_rate: int, other: int) -> Callable[[Tensor], Tensor]:
    def run(audio: Tensor) -> Tensor:
        return fit_length(
            resample(resample(audio, sample_rate, other), other, sample_rate), audio.shape[-1]
        )

    return run


def _lossy(kind: str, kbps: float, sample_rate: int) -> Callable[[Tensor], Tensor]:
    from tokgen.audio.lossy import LossyCoder

    coder = LossyCoder(kind, kbps, audio_rate=sample_rate)

    def run(audio: Tensor) -> Tensor:
        at_rate = resample(audio, sample_rate, coder.sample_rate).cpu().numpy()
        coded = torch.from_numpy(np.stack([coder.roundtrip(item[0]) for item in at_rate]))[:, None]
        back = resample(coded.to(audio.device), coder.sample_rate, sample_rate)
        return fit_length(back, audio.shape[-1])

    return run
