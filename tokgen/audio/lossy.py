"""MP3 and Opus through PyAV (FFmpeg), in memory and without delay.

    coder = LossyCoder("mp3", 24, audio_rate=16000)
    decoded = coder.roundtrip(samples)  # [N] at coder.sample_rate

Audio is float, so nothing clips, and nothing is resampled. MP3 runs at the rate of the audio if the
standard has the bitrate there. Opus always runs at 48 kHz, the only rate of FFmpeg's decoder. The
delay that the encoder reports (1105 samples for LAME, a pre-skip of 312 for Opus) is removed, and
so is the delay of Opus' speech modes in FFmpeg's decoder (see `DECODER_DELAY`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, cast

import av
import numpy as np
from av.audio.codeccontext import AudioCodecContext

from tokgen.audio.bitrates import check_kbps

__all__ = [
    "DECODER_DELAY",
    "FORMATS",
    "MP3_FRAME",
    "MP3_KBPS",
    "OPUS_FRAME",
    "PADDING",
    "RATES",
    "Format",
    "LossyCoder",
    "advance",
    "opus_mode",
]

OPUS_FRAME = 960  # samples, 20 ms at 48 kHz
MP3_FRAME = 576  # samples of one granule
PADDING = 4096  # samples of silence after the clip, longer than any encoder's delay


@dataclass(frozen=True)
class Format:
    """How FFmpeg runs a format."""

    encoder: str
    decoder: str
    sample_format: str  # of the encoder's input
    options: dict[str, str]  # of the encoder


FORMATS = {
    "mp3": Format("libmp3lame", "mp3float", "fltp", {}),
    "opus": Format("libopus", "opus", "flt", {"vbr": "off"}),
}

# MP3's bitrates in kbps at each sample rate in Hz. FFmpeg silently takes the nearest one for a
# bitrate outside their range.
_MPEG_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG_2 = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_25 = (8, 16, 24, 32, 40, 48, 56, 64)
MP3_KBPS = (
    dict.fromkeys((8000, 11025, 12000), _MPEG_25)
    | dict.fromkeys((16000, 22050, 24000), _MPEG_2)
    | dict.fromkeys((32000, 44100, 48000), _MPEG_1)
)
# MP3 for audio of other or unknown rates: (highest bitrate in kbps, sample rate in Hz).
RATES = ((16, 16000), (24, 22050), (63, 32000), (320, 44100))

# Opus: delay of FFmpeg's decoder after the pre-skip in samples at 48 kHz, by mode (RFC 6716,
# table 2). The delay of SILK's resamplers minus the lead of its high-pass filter, measured as the
# lag of speech after 25 passes, divided by 25.
DECODER_DELAY = {"narrow": 5.55, "medium": -0.45, "wide": -0.55, "hybrid": -0.56, "celt": 0.0}


class LossyCoder:
    """MP3 or Opus at one bitrate.

    Args:
        kind: "mp3" or "opus".
        kbps: bitrate. It is constant for Opus, and for MP3 if the standard has it (8, 16, 24, 32,
            40 …); other bitrates of MP3 hold on average.
        audio_rate: Hz of the audio, at which MP3 runs if it has the bitrate there: 32, 44.1 and
            48 kHz have 32 to 320 kbps, 16, 22.05 and 24 kHz have 8 to 160, 8, 11.025 and 12 kHz
            have 8 to 64. Otherwise a rate of `RATES` is used.
    Attributes:
        sample_rate: Hz.
        frame: samples per frame.
    Raises:
        ValueError: unknown kind, or a bitrate that the format does not have.
    """

    def __init__(self, kind: str, kbps: float, audio_rate: int | None = None) -> None:
        if kind not in FORMATS:
            raise ValueError(f"format {kind!r}: must be one of {', '.join(FORMATS)}")
        check_kbps(kind, kbps)
        self.format, self.kbps = FORMATS[kind], kbps
        self.sample_rate, self.frame, self.options = 48000, OPUS_FRAME, dict(self.format.options)
        if kind == "mp3":
            self.sample_rate, self.frame = _mp3_rate(kbps, audio_rate), MP3_FRAME
            if kbps not in MP3_KBPS[self.sample_rate]:
                self.options["abr"] = "1"

    def roundtrip(self, samples: np.ndarray) -> np.ndarray:
        """Encode and decode [N], without delay."""
        packets, delay = self.packets(samples)
        decoded = self.decode_packets(packets)
        if self.format.decoder == "opus":
            decoded = advance(decoded, DECODER_DELAY[opus_mode(packets)])
        return decoded[delay : delay + len(samples)].astype(np.float32)

    def packets(self, samples: np.ndarray) -> tuple[list[bytes], int]:
        """Encode [N]; return the packets and the encoder's delay in samples."""
        rate = self.sample_rate
        encoder = _context(self.format.encoder, "w", rate)
        encoder.format = self.format.sample_format
        encoder.bit_rate, encoder.options = round(1000 * self.kbps), self.options
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
        decoder = _context(self.format.decoder, "r", self.sample_rate)
        frames = []
        for data in packets:  # without side data, which would remove the delay twice
            packet = av.Packet(len(data))
            packet.update(data)  # unlike Packet(data), followed by the zeros that decoders read
            frames += decoder.decode(packet)
        frames += decoder.decode(None)
        return np.concatenate([frame.to_ndarray()[0] for frame in frames])


def _mp3_rate(kbps: float, audio_rate: int | None) -> int:
    """Return the rate at which MP3 runs for audio of a rate in Hz."""
    if audio_rate in MP3_KBPS and MP3_KBPS[audio_rate][0] <= kbps <= MP3_KBPS[audio_rate][-1]:
        return audio_rate
    return next(rate for most, rate in RATES if kbps <= most)


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
