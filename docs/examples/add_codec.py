"""A small codec: the cosine transform of each frame, rounded to 256 steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from tokgen.codec.base import Codec
from tokgen.codec.spec import CodecSpec, Encoded, Side
from tokgen.codec.windows import fit_length
from tokgen.nn.hashes import hash_weights


class DctModel(nn.Module):
    """The cosines of a frame, as weights: [hop_length, hop_length], orthonormal."""

    def __init__(self, hop_length: int) -> None:
        super().__init__()
        n = torch.arange(hop_length, dtype=torch.float64)
        rows = torch.cos(math.pi / hop_length * (n + 0.5) * n[:, None])
        rows *= math.sqrt(2 / hop_length)
        rows[0] /= math.sqrt(2)
        self.rows = nn.Parameter(rows, requires_grad=False)


class DctCodec(Codec):
    """16 kHz, hop 40; 16 levels of 256 entries: the lowest 16 coefficients of each frame."""

    model: DctModel

    def __init__(self, hop_length: int = 40, n_codebooks: int = 16, codebook_size: int = 256):
        model = DctModel(hop_length)
        numbers = (16000, hop_length, n_codebooks, codebook_size)
        super().__init__(model, CodecSpec("dct", *numbers, hash_weights(model), library="example"))
        self.limit = math.sqrt(hop_length)  # the largest coefficient of audio in [-1, 1]

    def _encode(self, waveform: Tensor, lengths: list[int]) -> Encoded:
        # What lies past the end of a clip in a batch must not change its codes.
        ends = torch.tensor(lengths, device=waveform.device)[:, None, None]
        waveform = waveform * (torch.arange(waveform.shape[-1], device=waveform.device) < ends)
        n_frames = self.spec.n_frames(waveform.shape[-1])
        whole = fit_length(waveform, n_frames * self.spec.hop_length)
        frames = whole[:, 0].unflatten(-1, (n_frames, -1)).double()  # [B, T, hop]
        kept = (frames @ self.model.rows.T)[..., : self.spec.n_codebooks] / self.limit
        steps = kept.sign() * kept.abs().sqrt() * (self.spec.codebook_size // 2 - 1)
        return Encoded((steps.round().long() + self.spec.codebook_size // 2).mT)  # [B, K, T]

    def _decode(self, codes: Tensor, side: Side) -> Tensor:
        half = self.spec.codebook_size // 2
        steps = (codes.mT.double() - half) / (half - 1)  # [B, T, k]
        kept = steps.sign() * steps.square() * self.limit
        frames = kept @ self.model.rows[: codes.shape[1]]  # [B, T, hop]
        return frames.flatten(1)[:, None].float()
