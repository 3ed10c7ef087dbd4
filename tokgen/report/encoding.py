"""Encode audio for the page as 16-bit WAV or as Opus in Ogg."""

from __future__ import annotations

import io
import wave
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from torch import Tensor

from tokgen.audio.resampling import resample
from tokgen.codec_training.crops import to_int16

__all__ = ["KINDS", "OPUS_KBPS", "OPUS_RATE", "AudioFormat"]

KINDS = ("wav", "opus")
OPUS_RATE = 48_000
OPUS_KBPS = (6, 256)  # range of mono Opus


@dataclass(frozen=True)
class AudioFormat:
    """Audio format of the page.

    Attributes:
        kind: "wav" (16 bits) or "opus".
        kbps: bitrate of Opus.
    Raises:
        ValueError: unknown kind, or a bitrate that Opus does not support.
    """

    kind: str = "wav"
    kbps: int = 64

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"audio {self.kind!r}: must be one of {', '.join(KINDS)}")
        if not OPUS_KBPS[0] <= self.kbps <= OPUS_KBPS[1]:
            least, most = OPUS_KBPS
            raise ValueError(f"Opus at {self.kbps} kbps: mono Opus supports {least} to {most} kbps")

    def __str__(self) -> str:
        return "16-bit WAV" if self.kind == "wav" else f"Opus at {self.kbps} kbps"

    def encode(self, waveform: Tensor, sample_rate: int) -> bytes:
        """Encode a waveform [1, N] in [-1, 1] as a file of the same length."""
        if self.kind == "wav":
            return _wav(waveform, sample_rate)
        return _opus(resample(waveform, sample_rate, OPUS_RATE)[0].numpy(), self.kbps)


def _wav(waveform: Tensor, sample_rate: int) -> bytes:
    """Encode 16-bit WAV. Samples that were read from 16-bit audio are preserved exactly."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(sample_rate)
        file.writeframes(to_int16(waveform).astype("<i2").tobytes())
    return out.getvalue()


def _opus(samples: np.ndarray, kbps: int) -> bytes:
    """Encode samples [N] at 48 kHz. FFmpeg stores pre-skip and length, so decoders restore N."""
    out = io.BytesIO()
    with av.open(out, "w", format="ogg") as container:
        stream = container.add_stream("libopus", rate=OPUS_RATE, layout="mono")
        stream.bit_rate = 1000 * kbps
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), "flt", "mono")
        frame.sample_rate, frame.pts, frame.time_base = OPUS_RATE, 0, Fraction(1, OPUS_RATE)
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()
