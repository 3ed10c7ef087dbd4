"""Find where the frames of decoded audio begin.

Audio that a codec decoded comes back nearly unchanged when the codec encodes and decodes it on the
same grid of frames, and less so on every other grid. `find_grid` compares the grids:

    error     the audio minus its reconstruction on a grid
    score     mean over time and frequency of log(power of the audio / power of the error), in three
              bands, against the mean and the spread of the scores of random grids

The logarithm gives quiet times and frequencies as much weight as loud ones. There, the
reconstruction depends on the grid most. docs/stable.md has the scores that were measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.codec.checks import check_mono, check_waveform
from tokgen.codec.spec import CodecSpec
from tokgen.runs.device import float64

__all__ = [
    "MIN_FRAMES",
    "THRESHOLD",
    "Grid",
    "GridScores",
    "Roundtrip",
    "check_audio",
    "check_grid",
    "find_grid",
    "others_of",
]

THRESHOLD = 8.0  # standard deviations
MIN_FRAMES = 8  # shorter audio has no grid
_SCREEN_FRAMES = 16  # of the excerpt that is scored on every `_STEP`-th grid
_FINAL_FRAMES = 50  # of the excerpt that decides
_STEP = 3  # samples between the grids that are tried first
_CANDIDATES = 4  # of these grids, whose neighbours are tried
_FINALISTS = 3
_OTHERS = 32  # random grids that the best is compared with
_FEWEST_OTHERS = 8  # fewer have no useful spread
_NEAR = 12  # samples around a true grid in which scores are high too
_EDGE = 1  # frames at both ends of an excerpt that are not compared
_BANDS = (0.25, 0.5, 1.0)  # upper ends as shares of the band of the audio
_LEAST = 1e-3  # an error below -30 dB of the audio counts as that
_FLOOR = 1e-6, 1e-8  # power that counts as silence: share of the mean, and absolute
_BATCH = 1 << 18  # samples that are encoded together


class Roundtrip(Protocol):
    """Interface of a codec for `find_grid`."""

    spec: CodecSpec

    def excerpt_roundtrip(self, waveform: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Grid:
    """The place of the frames in audio.

    Attributes:
        offset: sample in which the first whole frame begins, 0..hop_length - 1.
        score: distance of this grid's score from those of other grids, in standard deviations;
            NaN if the audio is too short, or a frame has too few samples for other grids.
        found: the score is at least the threshold: the codec decoded this audio.
    """

    offset: int
    score: float
    found: bool


@torch.no_grad()
def find_grid(waveform: Tensor, codec: Roundtrip, *, threshold: float = THRESHOLD) -> Grid:
    """Return whether a codec decoded this audio, and where its frames begin.

    An excerpt of 16 frames is scored on every third grid; up to 50 frames decide between the best
    ones. The loudest parts are used, so the work does not grow with the audio. Nothing is random:
    the same audio gives the same result.

    Args:
        waveform: [N] or [1, N] at the codec's rate.
        codec: any codec without overlapping chunks.
        threshold: least score of a grid that is found. On validation splits, natural audio scored
            at most 4.4 with `speech-16k` (n = 123) and 5.0 with `speech-16k-code` (n = 109). Fewer
            than 1 in 1,000 reach the default if the tail of the scores is exponential.
    Raises:
        TypeError: integers, or not a tensor.
        ValueError: several channels, no samples, not finite, or a codec with overlapping chunks.
    """
    check_grid(codec.spec)
    audio, hop = check_audio(waveform), codec.spec.hop_length
    if len(audio) // hop - 1 < MIN_FRAMES:
        return Grid(0, math.nan, False)
    start = _loudest(audio, hop, _SCREEN_FRAMES)
    screened = GridScores(codec, audio[start:], _SCREEN_FRAMES)
    coarse = list(range(0, hop, min(_STEP, hop)))
    scores = screened.score(coarse)
    best = [coarse[i] for i in _top(_robust_z_scores(scores, scores), _CANDIDATES)]
    tried = sorted({(offset + d) % hop for offset in best for d in range(1 - _STEP, _STEP)})
    ranked = _top(_robust_z_scores(screened.score(tried), scores), _FINALISTS)
    finalists = [tried[i] for i in ranked]
    begin = _loudest(audio, hop, _FINAL_FRAMES)
    final = GridScores(codec, audio[begin:], _FINAL_FRAMES)
    others = others_of(finalists, hop)
    if len(others) < _FEWEST_OTHERS:
        return Grid(0, math.nan, False)
    values = _z_scores(final.score(finalists), final.score(others)).amax(1)
    score, i = values.max(0)
    offset = finalists[int(i)]
    return Grid(offset, float(score), bool(score >= threshold))


def check_grid(spec: CodecSpec) -> None:
    """Raise ValueError if a codec's frames form no single grid."""
    if spec.chunk_length:
        raise ValueError(
            f"{spec.name} codes overlapping chunks of {spec.chunk_length} samples, so its frames "
            "form no grid: use a codec without chunks"
        )


def check_audio(waveform: Tensor) -> Tensor:
    """Return a waveform [N] or [1, N] as finite float32 [N]."""
    return check_waveform(check_mono(waveform)[None, None])[0, 0]


class GridScores:
    """Scores of the grids of an excerpt.

    All grids are compared over the same samples.

    Args:
        audio: [N], of which at most `n_frames` frames are used.
    """

    def __init__(self, codec: Roundtrip, audio: Tensor, n_frames: int) -> None:
        self.codec, self.hop = codec, codec.spec.hop_length
        self.n_frames = min(n_frames, len(audio) // self.hop - 1)
        n = (self.n_frames + 1) * self.hop
        self.audio = audio[:n]
        self.n_fft = max(16, 1 << (self.hop.bit_length() - 1))
        self.compared = slice((_EDGE + 1) * self.hop, (self.n_frames - _EDGE) * self.hop)
        power = _power(self.audio[None, self.compared], self.n_fft)[:, None]
        power = F.avg_pool2d(power, (5, 3), 1, (2, 1), count_include_pad=False)[:, 0]
        share, least = _FLOOR
        self.floor = share * power.mean() + least * self.n_fft
        self.power = power

    def frames(self, n: int) -> np.ndarray:
        """Return the frames of the excerpt in which the first n scores of a track lie, [n]."""
        step = self.n_fft // 2
        return (self.compared.start + step + step * np.arange(n)) // self.hop

    def score(self, offsets: Sequence[int]) -> Tensor:
        """Return the mean scores of grids in each band, [len(offsets), bands]."""
        tracks = list(self.tracks(offsets))
        return torch.cat([track.mean(1) for track in tracks])

    def tracks(self, offsets: Sequence[int]) -> Iterator[Tensor]:
        """Yield the scores over time of batches of grids, [batch, frames, bands]."""
        n = self.n_frames * self.hop
        batch = max(1, _BATCH // n)
        for i in range(0, len(offsets), batch):
            pieces = [self.audio[o : o + n] for o in offsets[i : i + batch]]
            again = self.codec.excerpt_roundtrip(torch.stack(pieces)[:, None])[:, 0]
            again = again.to(self.audio.device)
            padded = [
                F.pad(y, (o, self.hop - o))
                for o, y in zip(offsets[i : i + batch], again, strict=True)
            ]
            error = (self.audio - torch.stack(padded))[:, self.compared]
            yield self._score(_power(error, self.n_fft))

    def _score(self, error: Tensor) -> Tensor:
        ratio = (error + _LEAST * self.power + self.floor) / (self.power + self.floor)
        levels = -ratio.log()  # [batch, bins, frames]
        bins = levels.shape[1]
        ends = [max(1, round(share * bins)) for share in _BANDS]
        return torch.stack([levels[:, :end].mean(1) for end in ends], dim=-1)


def _power(audio: Tensor, n_fft: int) -> Tensor:
    """Return the power spectra of audio [B, N], [B, bins, frames]."""
    window = torch.hann_window(n_fft, device=audio.device)
    hop = n_fft // 2
    return (
        torch.stft(audio, n_fft, hop, window=window, center=False, return_complex=True)
        .abs()
        .square()
    )


def _robust_z_scores(scores: Tensor, around: Tensor) -> Tensor:
    """Return scores [M, bands] less the median of `around`, over its median absolute deviation."""
    middle = around.median(0).values
    scale = 1.4826 * (around - middle).abs().median(0).values
    return (scores - middle) / scale.clamp_min(1e-6)


def _top(values: Tensor, n: int) -> list[int]:
    """Return the indices of the n grids with the largest values [M, bands] in any band."""
    best = values.amax(1)
    return best.topk(min(n, len(best))).indices.tolist()


def _z_scores(scores: Tensor, others: Tensor) -> Tensor:
    """Return scores [M, bands] less the mean of `others`, over their standard deviation."""
    mean, scale = others.mean(0), others.std(0)
    return (scores - mean) / scale.clamp_min(1e-6)


def others_of(tried: Sequence[int], hop: int) -> list[int]:
    """Return up to `_OTHERS` grids away from those in `tried`, always the same ones."""
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(hop, generator=generator).tolist()
    near = min(_NEAR, hop // 8)

    def far(offset: int) -> bool:
        return all(min((offset - t) % hop, (t - offset) % hop) > near for t in tried)

    return [offset for offset in order if far(offset)][:_OTHERS]


def _loudest(audio: Tensor, hop: int, n_frames: int) -> int:
    """Return the first sample of the n + 1 frames with the highest mean level in dB."""
    levels = audio[: len(audio) // hop * hop].view(-1, hop).square().mean(1)
    levels = (levels + 1e-6 * levels.mean() + 1e-12).log()
    size = min(n_frames + 1, len(levels))
    sums = F.pad(float64(levels).cumsum(0), (1, 0))
    return int((sums[size:] - sums[:-size]).argmax()) * hop
