"""Residual k-means: the sum of one row of each codebook.

Each level is k-means of what the levels before it leave. Beam search at encoding time finds better
sums of the same rows (Babenko & Lempitsky 2014).
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from tokgen.codec.spec import Search
from tokgen.extras import require
from tokgen.nn.dense import argmax
from tokgen.quantizers.beam import Level, search_codes
from tokgen.quantizers.offline.base import OfflineQuantizer
from tokgen.runs.progress import progress_bar

__all__ = ["AdditiveQuantizer", "ResidualKMeans", "kmeans"]


class AdditiveQuantizer(OfflineQuantizer):
    """A frame is the sum of one row of each codebook; level k codes what the ones before leave.

    Args:
        dim, n_codebooks, codebook_size: D, K and R.
    """

    searches: ClassVar[bool] = True
    codebooks: Tensor  # [K, R, D]

    def __init__(self, *, dim: int, n_codebooks: int = 8, codebook_size: int = 1024) -> None:
        super().__init__({"dim": dim, "n_codebooks": n_codebooks, "codebook_size": codebook_size})
        self.register_buffer("codebooks", torch.zeros(n_codebooks, codebook_size, dim))

    def levels(self, n_codebooks: int | None = None) -> list[Level]:
        """Return the first levels for `tokgen.quantizers.beam`."""
        return [Level(rows, rows) for rows in self.codebooks[:n_codebooks]]

    def _encode(self, frames: Tensor, n_codebooks: int, beam: int) -> Tensor:
        levels = self.levels(n_codebooks)
        residual, greedy = frames, []
        for level in levels:
            greedy.append(argmax(-level.distances(residual, "latent")))
            residual = residual - level.outputs[greedy[-1]]
        codes = torch.stack(greedy, 1)
        if beam == 1:
            return codes
        search = Search(beam, "latent", n_codebooks)
        return search_codes(levels, frames.T[None], codes.T[None], search)[0].T

    def _decode(self, codes: Tensor) -> Tensor:
        total = self.codebooks[0, codes[:, 0]]
        for k in range(1, codes.shape[1]):
            total = total + self.codebooks[k, codes[:, k]]
        return total


class ResidualKMeans(AdditiveQuantizer):
    """k-means of the frames, then of what is left, and so on."""

    model_type = "residual_kmeans"

    def _fit(self, frames: Tensor, seed: int, progress: bool) -> None:
        residual = frames.cpu()
        bar = progress_bar("k-means", total=self.n_codebooks, unit="level", show=progress)
        with bar:
            for k in range(self.n_codebooks):
                rows = kmeans(residual, self.codebook_size, seed + k)
                self.codebooks[k] = rows
                code = argmax(-Level(rows, rows).distances(residual, "latent"))
                residual = residual - rows[code]
                bar.update()


def kmeans(frames: Tensor, size: int, seed: int) -> Tensor:
    """Return `size` centres of frames [n, D] by faiss' k-means, 25 rounds on up to 256 * size.

    The centres do not depend on the number of threads.
    """
    faiss = require("faiss", "train")
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        run = faiss.Kmeans(
            frames.shape[1],
            size,
            niter=25,
            seed=seed,
            min_points_per_centroid=1,
            max_points_per_centroid=256,
        )
        run.train(frames.cpu().contiguous().numpy())
        return torch.from_numpy(run.centroids.copy()).to(frames)
    finally:
        faiss.omp_set_num_threads(threads)
