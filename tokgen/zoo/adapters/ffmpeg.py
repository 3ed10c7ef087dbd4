"""MP3 and Opus as codecs without codes.

codec = FfmpegCodec("mp3", 24, audio_rate=16000)
decoded = codec.roundtrip(waveform)  # [B, 1, N] at codec.spec.sample_rate
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from tokgen.audio.lossy import LossyCoder
from tokgen.codec.base import WaveformCodec
from tokgen.codec.checks import check_waveform
from tokgen.codec.spec import WaveformSpec

__all__ = ["FfmpegCodec"]


class FfmpegCodec(WaveformCodec):
    """MP3 or Opus at one bitrate.

    Args:
        kind, kbps, audio_rate: as for `LossyCoder`.
    Raises:
        ValueError: unknown kind, or a bitrate that the format does not have.
    """

    def __init__(self, kind: str, kbps: float, audio_rate: int | None = None) -> None:
        self.coder = LossyCoder(kind, kbps, audio_rate)
        name, library = f"{kind}:{kbps:g}", f"FFmpeg {self.coder.format.encoder}"
        rate, frame = self.coder.sample_rate, self.coder.frame
        self.spec = WaveformSpec(name, rate, 1000.0 * kbps, library, hop_length=frame)

    def roundtrip(self, waveform: Tensor) -> Tensor:
        waveform = check_waveform(waveform)
        outputs = [self.coder.roundtrip(item[0].cpu().numpy()) for item in waveform]
        return torch.from_numpy(np.stack(outputs))[:, None].to(waveform.device)
