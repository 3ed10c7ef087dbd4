"""MP3 and Opus through PyAV (FFmpeg), as codecs without codes.

    codec = FfmpegCodec("opus", 12)
    decoded = codec.roundtrip(waveform)  # [B, 1, N] at codec.spec.sample_rate

Audio is float, at the rate of the format, so nothing is resampled or clipped. The delay that the
encoder reports (1105 samples for LAME, a pre-skip of 312 for Opus) is removed, and so is the delay
of Opus' speech modes in FFmpeg's decoder (see `DECODER_DELAY`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

import av
import numpy as np
import torch
from av.audio.codeccontext import AudioCodecContext
from torch import Tensor

from tokgen.codec.base import WaveformCodec
from tokgen.codec.checks import check_waveform
from tokgen.codec.spec import WaveformSpec

__all__ = [
    "CONSTANT",
    "DECODER_DELAY",
    "FORMATS",
    "PADDING",
    "RATES",
    "FfmpegCodec",
    "Format",
    "advance",
    "opus_mode",
]

PADDING = 4096  # samples of silence after the clip, longer than any encoder's delay


@dataclass(frozen=True)
class Format:
    """How FFmpeg runs a format."""

    encoder: str
    decoder: str
    sample_format: str  # of the encoder's input
    least: float  # lowest bitrate for mono, kbps
    most: float  # highest bitrate for mono, kbps
    options: dict[str, str]  # of the encoder


FORMATS = {
    "mp3": Format("libmp3lame", "mp3float", "fltp", 8, 320, {}),
    "opus": Format("libopus", "opus", "flt", 6, 256, {"vbr": "off"}),
}

# MP3: (highest bitrate in kbps, sample rate in Hz). 48 kHz is not used: below 32 kbps, FFmpeg
# silently encodes at 32.
RATES = ((16, 16000), (24, 22050), (63, 32000), (320, 44100))
CONSTANT = {  # bitrates in kbps that MP3 has at each sample rate
    16000: (8, 16),
    22050: (24,),
    32000: (32, 40, 48, 56),
    44100: (64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}

# Opus: delay of FFmpeg's decoder after the pre-skip in samples at 48 kHz, by mode (RFC 6716,
# table 2). The delay of SILK's resamplers minus the lead of its high-pass filter, measured as the
# lag of speech after 25 passes, divided by 25.
DECODER_DELAY = {"narrow": 5.55, "medium": -0.45, "wide": -0.55, "hybrid": -0.56, "celt": 0.0}


class FfmpegCodec(WaveformCodec):
    """MP3 or Opus at one bitrate.

    Args:
        kind: "mp3" or "opus".
        kbps: bitrate. It is constant for Opus, and for MP3 if the standard has it (8, 16, 24, 32,
            40 …); other bitrates of MP3 hold on average.
    Raises:
        ValueError: unknown kind, or a bitrate that the format does not have.
    """

    def __init__(self, kind: str, kbps: float) -> None:
        if kind not in FORMATS:
            raise ValueError(f"format {kind!r}: must be one of {', '.join(FORMATS)}")
        self.format = FORMATS[kind]
        if not self.format.least <= kbps <= self.format.most:
            raise ValueError(
                f"{kind}:{kbps:g}: mono {kind} has {self.format.least:g} to "
                f"{self.format.most:g} kbps; choose a bitrate in that range"
            )
        rate, self.options = 48000, dict(self.format.options)
        if kind == "mp3":
            rate = next(rate for most, rate in RATES if kbps <= most)
            if kbps not in CONSTANT[rate]:
                self.options["abr"] = "1"
        name = f"{kind}:{kbps:g}"
        self.spec = WaveformSpec(name, rate, 1000.0 * kbps, f"FFmpeg {self.format.encoder}")

    def roundtrip(self, waveform: Tensor) -> Tensor:
        waveform = check_waveform(waveform)
        outputs = [self._one(item[0].cpu().numpy()) for item in waveform]
        return torch.from_numpy(np.stack(outputs))[:, None].to(waveform.device)

    def packets(self, samples: np.ndarray) -> tuple[list[bytes], int]:
        """Encode [N]; return the packets and the encoder's delay in samples."""
        rate = self.spec.sample_rate
        encoder = _context(self.format.encoder, "w", rate)
        encoder.format = self.format.sample_format
        encoder.bit_rate, encoder.options = round(self.spec.bitrate), self.options
        encoder.time_base = Fraction(1, rate)
        encoder.open()
        size = encoder.frame_size
        padded = np.pad(samples, (0, PADDING + -(len(samples) + PADDING) % size))
        packets = []
        for start in range(0, len(padded), size):
            chunk = np.ascontiguousarray(padded[None, start : start + size])
            frame = av.AudioFrame.from_ndarray(chunk, self.format.sample_format, "mono")
            frame.sample_rate, frame.pts, frame.time_base = rate, start, encoder.time_base
            packets += encoder.encode(frame)
        packets += encoder.encode(None)
        return [bytes(packet) for packet in packets], -(packets[0].pts or 0)

    def decode_packets(self, packets: Sequence[bytes]) -> np.ndarray:
        """Decode packets to samples [N], with the delays of encoder and decoder."""
        decoder = _context(self.format.decoder, "r", self.spec.sample_rate)
        frames = []
        for data in packets:  # without side data, which would remove the delay twice
            packet = av.Packet(len(data))
            packet.update(data)  # unlike Packet(data), followed by the zeros that decoders read
            frames += decoder.decode(packet)
        frames += decoder.decode(None)
        return np.concatenate([frame.to_ndarray()[0] for frame in frames])

    def _one(self, samples: np.ndarray) -> np.ndarray:
        packets, delay = self.packets(samples)
        decoded = self.decode_packets(packets)
        if self.format.decoder == "opus":
            decoded = advance(decoded, DECODER_DELAY[opus_mode(packets)])
        return decoded[delay : delay + len(samples)].astype(np.float32)


def _context(codec: str, mode: Literal["r", "w"], rate: int) -> AudioCodecContext:
    context = cast(AudioCodecContext, av.CodecContext.create(codec, mode))
    context.sample_rate, context.layout = rate, "mono"
    return context


def opus_mode(packets: list[bytes]) -> str:
    """Return the mode of most packets, from their first five bits (RFC 6716, section 3.1)."""
    configuration = Counter(packet[0] >> 3 for packet in packets).most_common(1)[0][0]
    if configuration < 12:
        return ("narrow", "medium", "wide")[configuration // 4]
    return "hybrid" if configuration < 16 else "celt"


def advance(samples: np.ndarray, delay: float) -> np.ndarray:
    """Shift [N] earlier by `delay` samples, which may be a fraction; fill with silence."""
    if delay == 0:
        return samples
    size = 1 << (len(samples) + 64).bit_length()
    spectrum = np.fft.rfft(samples, size)
    turn = np.exp(2j * np.pi * np.fft.rfftfreq(size) * delay)
    return np.fft.irfft(spectrum * turn, size)[: len(samples)]
