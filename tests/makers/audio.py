"""Audio for tests."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, cast

import av
import numpy as np
import soundfile as sf
import torch
from torch import Tensor

if TYPE_CHECKING:
    from tokgen.codec.base import Codec

RATE = 16000


def make_tone(seconds: float, seed: int, sample_rate: int = RATE) -> Tensor:
    """Make a voice-like sound [1, N]: harmonics with vibrato, in syllables, with some noise."""
    generator = torch.Generator().manual_seed(seed)
    t = torch.arange(round(seconds * sample_rate)) / sample_rate
    pitch = 100 + 80 * torch.rand(1, generator=generator)
    phase = 2 * math.pi * (pitch * t + 1.5 * torch.sin(2 * math.pi * 3 * t))
    weights = torch.rand(12, generator=generator) / torch.arange(1, 13)
    voice = sum(w * torch.sin((k + 1) * phase) for k, w in enumerate(weights))
    syllables = 0.55 + 0.45 * torch.sin(2 * math.pi * 4 * t + seed)
    noise = 0.01 * torch.randn(len(t), generator=generator)
    return (0.3 * voice * syllables / weights.sum() + noise)[None]


def codec_tone(
    codec: Codec, n_samples: int | None = None, seed: int = 0, *, seconds: float = 1.0
) -> Tensor:
    """Make a voice-like sound [1, 1, N] at a codec's rate, of `n_samples` or of `seconds`."""
    rate = codec.spec.sample_rate
    return make_tone(seconds if n_samples is None else n_samples / rate, seed, rate)[None]


def cut(x: Tensor, sizes: list[int]) -> Iterator[Tensor]:
    """Cut [..., N] into pieces of the given sizes, repeated; sizes of 0 alone count as 1."""
    start = 0
    for size in cycle(sizes if any(sizes) else [1]):
        if start >= x.shape[-1]:
            return
        yield x[..., start : start + size]
        start += size


def make_sine(seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
    """Make a sine [N] of 440 Hz that fades in and out."""
    time = np.arange(round(seconds * rate)) / rate
    fade = np.minimum(1, np.minimum(time, time[::-1]) * 50)
    return (0.3 * fade * np.sin(2 * np.pi * 440 * time)).astype(np.float32)


def audio_bytes(samples: np.ndarray, subtype: str = "PCM_16", file_format: str = "WAV") -> bytes:
    """Return the bytes of an audio file that soundfile writes."""
    file = io.BytesIO()
    sf.write(file, samples, RATE, subtype=subtype, format=file_format)
    return file.getvalue()


def write_with_ffmpeg(
    path: Path, samples: np.ndarray, rate: int, codec: str, options: dict | None = None
) -> None:
    """Write samples [N] with a codec of FFmpeg."""
    with av.open(str(path), "w", options=options or {}) as container:
        stream = cast(av.AudioStream, container.add_stream(codec, rate=rate, layout="mono"))
        encoder = stream.codec_context
        encoder.open()
        frame = av.AudioFrame.from_ndarray(samples[None], format="fltp", layout="mono")
        frame.sample_rate, frame.pts = rate, 0
        fit = av.AudioResampler(encoder.format, "mono", rate, encoder.frame_size or None)
        for part in [*fit.resample(frame), *fit.resample(None)]:
            container.mux(stream.encode(part))
        container.mux(stream.encode(None))


def correlation(a: Tensor, b: np.ndarray) -> float:
    """Return the correlation of a waveform [1, N] and samples [M] over their common length."""
    n = min(a.shape[-1], len(b))
    return float(np.corrcoef(a[0, :n].numpy(), b[:n])[0, 1])
