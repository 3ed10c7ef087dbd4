"""What a model is told of each frame, by name: "mfcc" (Code Drift's) or "log_mel".

Frame t is centred on samples [t*hop, (t+1)*hop), like the codec's, so codes and coefficients
line up: T = ceil(N / hop_length) for both. For a codec of overlapping chunks each chunk has
coefficients of its own, which like its codes know nothing of the audio around it.
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
from tokgen.codec.spec import CodecSpec
from tokgen.codec.windows import MIN_FRAMES, Chunks, Reach, Stage, Windows, fit_length, run_whole

CONDITIONINGS = ("mfcc", "log_mel")  # each is also the column's name in a token dataset
WINDOW_FRAMES = 1000  # long audio goes through in windows of so many frames


@dataclass(frozen=True)
class ConditioningSettings:
    """What the coefficients depend on.

    Attributes:
        sample_rate: Hz.
        hop_length: samples per frame.
        n_mfcc: coefficients of "mfcc" (the paper: 30).
        n_fft: window in samples, periodic Hann.
        n_mels: mel bands: the coefficients of "log_mel", and what the DCT of "mfcc" sees.
        f_min, f_max: band edges in Hz; f_max None is half the sample rate.
        floor: mel powers are clamped to it before the logarithm.
        chunk_length, chunk_stride: samples, as in `CodecSpec`; 0 where audio is not cut.
        kind: of `CONDITIONINGS`.
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
                f"n_fft = {self.n_fft}: shorter than hop_length = {self.hop_length}, so audio "
                "would be skipped; raise n_fft"
            )

    @property
    def n_features(self) -> int:
        """Coefficients C per frame."""
        return self.n_mfcc if self.kind == "mfcc" else self.n_mels

    @classmethod
    def for_codec(cls, spec: CodecSpec, kind: str = "mfcc") -> Self:
        """Settings at a codec's rate: windows of 64 ms, rounded to a power of two, or the hop."""
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
    """Refuse a name that is none of `CONDITIONINGS`."""
    if kind not in CONDITIONINGS:
        raise ValueError(f"conditioning {kind!r}: known are {', '.join(CONDITIONINGS)}, or none")


class Conditioning(nn.Module):
    """waveform -> coefficients; values do not depend on batching."""

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
        self.register_buffer("bank", bank, persistent=False)
        self.register_buffer(
            "dct", functional.create_dct(s.n_mfcc, s.n_mels, "ortho"), persistent=False
        )
        self.register_buffer("window", torch.hann_window(s.n_fft), persistent=False)

    @torch.no_grad()
    def forward(self, waveform: Tensor) -> Tensor:
        """waveform [B, 1, N] -> coefficients [B, C, T], T = `CodecSpec.n_frames(N)`."""
        return run_whole([self._stage()], check_waveform(waveform))

    @torch.no_grad()
    def blocks(self, blocks: Iterable[Tensor]) -> Iterator[Tensor]:
        """Of audio that comes in blocks [1, n] or [B, 1, n]: coefficients [B, C, t], which
        together equal those of the whole."""
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
            return Chunks(self._coefficients, s.chunk_length, s.chunk_stride, n_frames)
        before, after = self._edges
        reach = Reach(-(-before // s.hop_length), -(-after // s.hop_length))
        return Windows(
            lambda window, _: self._coefficients(window),
            reach,
            size=WINDOW_FRAMES,
            hop_in=s.hop_length,
        )

    @property
    def _edges(self) -> tuple[int, int]:
        """Samples that a frame's window takes from before and after the frame."""
        both = self.settings.n_fft - self.settings.hop_length
        return both // 2, both - both // 2

    def _coefficients(self, waveform: Tensor) -> Tensor:
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
