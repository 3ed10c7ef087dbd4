"""Product quantization: each codebook codes one slice of the frame.

`RotatedProductQuantizer` rotates the frames first, so that the slices share the variance (OPQ, Ge
et al. 2013).
"""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from tokgen.extras import require
from tokgen.nn.dense import argmax, linear
from tokgen.quantizers.offline.additive import kmeans, one_faiss_thread
from tokgen.quantizers.offline.base import OfflineQuantizer
from tokgen.runs.progress import progress_bar

__all__ = ["ProductQuantizer", "RotatedProductQuantizer"]


class ProductQuantizer(OfflineQuantizer):
    """k-means of each slice of the frame.

    The first D mod K slices are one number longer than the others.

    Args:
        dim, n_codebooks, codebook_size: D, K and R; K may be at most D.
    """

    model_type = "product"
    nested: ClassVar[bool] = False
    codebooks: Tensor  # [R, width of all slices]

    def __init__(self, *, dim: int, n_codebooks: int = 8, codebook_size: int = 1024) -> None:
        super().__init__({"dim": dim, "n_codebooks": n_codebooks, "codebook_size": codebook_size})
        if n_codebooks > dim:
            raise ValueError(
                f"n_codebooks = {n_codebooks}: frames of {dim} numbers have at most {dim} slices"
            )
        self.widths = self.slices()
        self.register_buffer("codebooks", torch.zeros(codebook_size, sum(self.widths)))

    def slices(self) -> list[int]:
        """Return the width of each slice."""
        least, longer = divmod(self.dim, self.n_codebooks)
        return [least + (k < longer) for k in range(self.n_codebooks)]

    def _fit(self, frames: Tensor, seed: int, progress: bool) -> None:
        parts = frames.cpu().split(self.widths, 1)
        bar = progress_bar("k-means", total=self.n_codebooks, unit="slice", show=progress)
        with bar:
            for k, rows in enumerate(self.codebooks.split(self.widths, 1)):
                rows.copy_(kmeans(parts[k], self.codebook_size, seed + k))
                bar.update()

    def _encode(self, frames: Tensor, n_codebooks: int, beam: int) -> Tensor:
        codes = []
        for rows, part in zip(self._rows(), frames.split(self.widths, 1), strict=True):
            nearest = linear(part.contiguous(), 2 * rows, -rows.square().sum(1))
            codes.append(argmax(nearest))
        return torch.stack(codes, 1)

    def _decode(self, codes: Tensor) -> Tensor:
        found = zip(self._rows(), codes.unbind(1), strict=True)
        return torch.cat([rows[code] for rows, code in found], 1)

    def _rows(self) -> list[Tensor]:
        """Return the codebook of each slice, [R, its width]."""
        return [rows.contiguous() for rows in self.codebooks.split(self.widths, 1)]


class RotatedProductQuantizer(ProductQuantizer):
    """k-means of each slice of the rotated frame.

    faiss finds the rotation. Frames are rotated into ceil(D / K) * K dimensions, so that the slices
    have equal widths.

    Args:
        dim, n_codebooks, codebook_size: D, K and R; K may be at most D.
        n_rounds: rounds in which the rotation and the codebooks are improved in turn.
    """

    model_type = "rotated_product"
    rotation: Tensor  # [width of all slices, D]

    def __init__(
        self, *, dim: int, n_codebooks: int = 8, codebook_size: int = 1024, n_rounds: int = 50
    ) -> None:
        if n_rounds < 1:
            raise ValueError(f"n_rounds = {n_rounds}: must be at least 1")
        super().__init__(dim=dim, n_codebooks=n_codebooks, codebook_size=codebook_size)
        self.config["n_rounds"] = self.n_rounds = n_rounds
        self.register_buffer("rotation", torch.zeros(sum(self.widths), dim))

    def slices(self) -> list[int]:
        return [-(-self.dim // self.n_codebooks)] * self.n_codebooks

    def _fit(self, frames: Tensor, seed: int, progress: bool) -> None:
        self.rotation.copy_(self._find_rotation(frames.cpu()))
        super()._fit(linear(frames.cpu(), self.rotation.cpu()), seed, progress)

    def _find_rotation(self, frames: Tensor) -> Tensor:
        """Return the first D columns of a rotation, [padded D, D]."""
        faiss = require("faiss", "train")
        width, bits = sum(self.widths), self.codebook_size.bit_length() - 1
        finder = faiss.OPQMatrix(width, self.n_codebooks)
        finder.niter = self.n_rounds
        slices = faiss.ProductQuantizer(width, self.n_codebooks, bits)
        slices.cp.min_points_per_centroid = 1
        finder.pq = slices
        padded = F.pad(frames, (0, width - self.dim)).contiguous().numpy()
        with one_faiss_thread(faiss):
            finder.train(padded)
        rotation = torch.from_numpy(faiss.vector_to_array(finder.A).copy()).view(width, width)
        return rotation[:, : self.dim].contiguous()

    def _encode(self, frames: Tensor, n_codebooks: int, beam: int) -> Tensor:
        return super()._encode(linear(frames, self.rotation), n_codebooks, beam)

    def _decode(self, codes: Tensor) -> Tensor:
        return linear(super()._decode(codes), self.rotation.T.contiguous())
