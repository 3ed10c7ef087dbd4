"""Conditioning features, one vector per codec frame: "mfcc" (as in Code Drift) or "log_mel".

Frame t is centred on samples [t*hop, (t+1)*hop), as in the codec. So codes and features have the
same number of frames, T = ceil(N / hop_length). If the codec encodes overlapping chunks, the
features of a chunk also depend on that chunk's audio only.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.audio.torchaudio_shim import import_torchaudio
from tokgen.codec.checks import check_waveform
from tokgen.codec.chunks import Chunks
from tokgen.codec.continuous import ContinuousSpec
from tokgen.codec.spec import CodecSpec
from tokgen.codec.windows import MIN_FRAMES, Reach, Stage, Windows, fit_length, run_whole

__all__ = ["CONDITIONINGS", "WINDOW_FRAMES", "Conditioning", "ConditioningSettings", "check_kind"]

CONDITIONINGS = ("mfcc", "log_mel")  # also the column names in a token dataset
WINDOW_FRAMES = 1000  # long audio is processed in windows of this many frames


@dataclass(frozen=True)
class ConditioningSettings:
    """Settings of the conditioning features.

    Attributes:
        sample_rate: Hz.
        hop_length: samples per frame.
        n_mfcc: number of coefficients of "mfcc" (30 in the paper).
        n_fft: length of the periodic Hann window in samples.
        n_mels: number of mel bands; "mfcc" is their DCT.
        f_min, f_max: limits of the bands in Hz; None is half the sample rate.
        floor: smallest mel power; smaller values are raised to it before the logarithm.
        chunk_length, chunk_stride: samples, as in `CodecSpec`; 0 for a codec without chunks.
        kind: one of `CONDITIONINGS`.
    """

    sample_rate: int
    hop_length: int
    n_mfcc: int = 30
    n_fft: int = 1024
    n_mels: int = 80
    f_min: float = 0.0
    f_max: float | None = None
    floor: float = 1e-8
    chunk_length: int = 0
    chunk_stride: int = 0
    kind: str = "mfcc"

    def __post_init__(self) -> None:
        check_kind(self.kind)
        if not 1 <= self.n_mfcc <= self.n_mels:
            raise ValueError(f"n_mfcc = {self.n_mfcc}: must be in 1..n_mels = {self.n_mels}")
        if self.n_fft < self.hop_length:
            raise ValueError(
                f"n_fft = {self.n_fft} is shorter than hop_length = {self.hop_length}, so audio "
                "would be skipped; raise n_fft"
            )

    @property
    def n_features(self) -> int:
        """Number of features C per frame."""
        return self.n_mfcc if self.kind == "mfcc" else self.n_mels

    @classmethod
    def for_codec(cls, spec: CodecSpec | ContinuousSpec, kind: str = "mfcc") -> Self:
        """Return settings for a codec, with a window of about 64 ms, a power of two.

        If the codec's hop is longer than that, the window has the length of the hop.
        """
        assert spec.hop_length is not None
        n_fft = 2 ** round(math.log2(0.064 * spec.sample_rate))
        return cls(
            spec.sample_rate,
            spec.hop_length,
            kind=kind,
            n_fft=max(n_fft, spec.hop_length + spec.hop_length % 2),
            chunk_length=spec.chunk_length,
            chunk_stride=spec.chunk_stride,
        )


def check_kind(kind: str) -> None:
    """Raise ValueError if a name is not one of `CONDITIONINGS`."""
    if kind not in CONDITIONINGS:
        raise ValueError(f"conditioning {kind!r}: known are {', '.join(CONDITIONINGS)}, or none")


class Conditioning(nn.Module):
    """Computes features of audio. The values do not depend on the batch."""

    bank: Tensor
    dct: Tensor
    window: Tensor

    def __init__(self, settings: ConditioningSettings) -> None:
        super().__init__()
        self.settings = s = settings
        functional = import_torchaudio().functional
        top = s.sample_rate / 2 if s.f_max is None else s.f_max
        bank = functional.melscale_fbanks(
            s.n_fft // 2 + 1, s.f_min, top, s.n_mels, s.sample_rate, "slaney", "slaney"
        )
        dct = functional.create_dct(s.n_mfcc, s.n_mels, "ortho")
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer("dct", dct, persistent=False)
        self.register_buffer("window", torch.hann_window(s.n_fft), persistent=False)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """Return features [B, C, T] of waveforms [B, 1, N], T = `CodecSpec.n_frames(N)`."""
        return run_whole([self._stage()], check_waveform(waveform))

    @torch.no_grad()
    def blocks(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Yield features [B, C, t] of audio in blocks [1, n] or [B, 1, n].

        Together they equal the features of the whole audio.
        """
        stage = self._stage()
        for block in blocks:
            block = block[None] if block.ndim == 2 else block
            if block.shape[-1]:
                yield from stage.push(check_waveform(block))
        yield from stage.finish()

    def _stage(self) -> Stage:
        s = self.settings
        if s.chunk_length:
            n_frames = s.chunk_length // s.hop_length
            return Chunks(self._features, s.chunk_length, s.chunk_stride, n_frames)
        before, after = self._edges
        reach = Reach(-(-before // s.hop_length), -(-after // s.hop_length))
        step = s.hop_length
        return Windows(lambda x, _: self._features(x), reach, size=WINDOW_FRAMES, hop_in=step)

    @property
    def _edges(self) -> tuple[int, int]:
        """Samples of a frame's window before and after the frame."""
        both = self.settings.n_fft - self.settings.hop_length
        return both // 2, both - both // 2

    def _features(self, waveform: Tensor) -> Tensor:
        """[B, 1, N] -> [B, C, ceil(N / hop_length)]."""
        s = self.settings
        n_frames = -(-waveform.shape[-1] // s.hop_length)
        padded = fit_length(waveform, max(n_frames, MIN_FRAMES) * s.hop_length)[:, 0]
        frames = F.pad(padded, self._edges).unfold(-1, s.n_fft, s.hop_length) * self.window
        spectrum = torch.fft.rfft(frames)
        power = spectrum.real.square() + spectrum.imag.square()
        mel = (power @ self.bank).clamp(min=s.floor).log()
        features = mel @ self.dct if s.kind == "mfcc" else mel
        return features.mT[..., :n_frames]
