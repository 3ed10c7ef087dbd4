"""MP3 and Opus through PyAV (FFmpeg): audio for audio, no codes.

    codec = FfmpegCodec("opus", 12)
    again = codec.roundtrip(waveform)  # [B, 1, N] at codec.spec.sample_rate, as long and no later

Audio goes in and out in float and at the rate that the format runs at, so nothing is resampled or
clipped on the way. What the encoder says of its delay (LAME 1105 samples, Opus its pre-skip of
312) is cut off, and so is what FFmpeg's decoder leaves of Opus' speech modes (see `LATE`).
"""

from __future__ import annotations

from collections import Counter
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

PADDING = 4096  # samples of silence after the clip, over any encoder's delay


@dataclass(frozen=True)
class Format:
    """How FFmpeg runs a format.

    Attributes:
        encoder, decoder: FFmpeg's names.
        sample_format: of the encoder's input.
        least, most: bitrates in kbps for mono.
        options: of the encoder.
    """

    encoder: str
    decoder: str
    sample_format: str
    least: float
    most: float
    options: dict[str, str]


FORMATS = {
    "mp3": Format("libmp3lame", "mp3float", "fltp", 8, 320, {}),
    "opus": Format("libopus", "opus", "flt", 6, 256, {"vbr": "off"}),
}

# MP3: the highest rate in Hz up to each bitrate in kbps. At 48 kHz there is nothing under
# 32 kbps: FFmpeg takes 32 without a word where less is asked for.
RATES = ((16, 16000), (24, 22050), (63, 32000), (320, 44100))
CONSTANT = {
    16000: (8, 16),
    22050: (24,),
    32000: (32, 40, 48, 56),
    44100: (64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
}

# Opus: samples at 48 kHz by which FFmpeg's decoder comes late after the pre-skip, by the bandwidth
# of SILK (RFC 6716, table 2): its resamplers' delay, and what its high-pass filter leads by. A 25th
# of the lag of speech after 25 passes. With libopus' own decoder it varies by 3 samples over
# frequency.
LATE = {"narrow": 5.55, "medium": -0.45, "wide": -0.55, "hybrid": -0.56, "celt": 0.0}


class FfmpegCodec(WaveformCodec):
    """MP3 or Opus at one bitrate.

    Args:
        kind: "mp3" or "opus".
        kbps: bitrate. MP3 keeps it constant where the standard has it at its rate (8, 16, 24, 32,
            40 …) and on average elsewhere; Opus keeps it constant.
    Raises:
        ValueError: another kind, or a bitrate that the format does not have.
    """

    def __init__(self, kind: str, kbps: float) -> None:
        if kind not in FORMATS:
            raise ValueError(f"format {kind!r}: known are {', '.join(FORMATS)}")
        self.format = FORMATS[kind]
        if not self.format.least <= kbps <= self.format.most:
            raise ValueError(
                f"{kind}:{kbps:g}: mono {kind} has {self.format.least:g} to "
                f"{self.format.most:g} kbps; give a bitrate in that range"
            )
        rate, self.options = 48000, dict(self.format.options)
        if kind == "mp3":
            rate = next(rate for most, rate in RATES if kbps <= most)
            if kbps not in CONSTANT[rate]:
                self.options["abr"] = "1"
        name = f"{kind}:{kbps:g}"
        self.spec = WaveformSpec(name, rate, 1000.0 * kbps, f"FFmpeg {self.format.encoder}")

    def roundtrip(self, waveform: Tensor) -> Tensor:
        """waveform [B, 1, N] at `spec.sample_rate` Hz -> the same shape, without delay.

        Raises:
            ValueError: not mono, empty or not finite.
        """
        waveform = check_waveform(waveform)
        outputs = [self._one(item[0].cpu().numpy()) for item in waveform]
        return torch.from_numpy(np.stack(outputs))[:, None].to(waveform.device)

    def packets(self, samples: np.ndarray) -> tuple[list[bytes], int]:
        """What the encoder makes of [N], and the samples before the first that is the clip's."""
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

    def _one(self, samples: np.ndarray) -> np.ndarray:
        packets, delay = self.packets(samples)
        decoder = _context(self.format.decoder, "r", self.spec.sample_rate)
        frames = []
        for packet in packets:  # bare ones: what they carry beside would be cut off twice
            frames += decoder.decode(av.Packet(packet))
        frames += decoder.decode(None)
        decoded = np.concatenate([frame.to_ndarray()[0] for frame in frames])
        if self.format.decoder == "opus":
            decoded = advance(decoded, LATE[opus_mode(packets)])
        return decoded[delay : delay + len(samples)].astype(np.float32)


def _context(codec: str, mode: Literal["r", "w"], rate: int) -> AudioCodecContext:
    context = cast(AudioCodecContext, av.CodecContext.create(codec, mode))
    context.sample_rate, context.layout = rate, "mono"
    return context


def opus_mode(packets: list[bytes]) -> str:
    """How most packets are coded, by the configuration in their first five bits (RFC 6716, 3.1)."""
    configuration = Counter(packet[0] >> 3 for packet in packets).most_common(1)[0][0]
    if configuration < 12:
        return ("narrow", "medium", "wide")[configuration // 4]
    return "hybrid" if configuration < 16 else "celt"


def advance(samples: np.ndarray, late: float) -> np.ndarray:
    """Shift [N] earlier by `late` samples, fractions included; silence comes in at the ends."""
    if late == 0:
        return samples
    size = 1 << (len(samples) + 64).bit_length()
    spectrum = np.fft.rfft(samples, size)
    turn = np.exp(2j * np.pi * np.fft.rfftfreq(size) * late)
    return np.fft.irfft(spectrum * turn, size)[: len(samples)]
