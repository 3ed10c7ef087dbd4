"""Additive quantizers: a frame is the sum of one row of each codebook.

In residual k-means, each level is k-means of what the levels before it leave. Local search (LSQ)
fits all codebooks together. Beam search at encoding time finds better sums of the same rows
(Babenko & Lempitsky 2014).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor

from tokgen.codec.spec import Search
from tokgen.extras import require
from tokgen.nn.dense import argmax
from tokgen.quantizers.beam import Level, search_codes
from tokgen.quantizers.offline.base import CHUNK, OfflineQuantizer
from tokgen.runs.progress import progress_bar

__all__ = [
    "AdditiveQuantizer",
    "LocalSearchQuantizer",
    "ResidualKMeans",
    "kmeans",
    "one_faiss_thread",
]

_SWEEPS = 3


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
        codes = self._greedy(frames, levels)
        if beam == 1:
            return codes
        search = Search(beam, "latent", n_codebooks)
        return search_codes(levels, frames.T[None], codes.T[None], search)[0].T

    def _greedy(self, frames: Tensor, levels: Sequence[Level]) -> Tensor:
        """Return the codes [n, k] of frames, one level after the other."""
        residual, codes = frames, []
        for level in levels:
            codes.append(argmax(-level.distances(residual, "latent")))
            residual = residual - level.outputs[codes[-1]]
        return torch.stack(codes, 1)

    def _decode(self, codes: Tensor) -> Tensor:
        total = self.codebooks[0, codes[:, 0]]
        for k in range(1, codes.shape[1]):
            total = total + self.codebooks[k, codes[:, k]]
        return total


class ResidualKMeans(AdditiveQuantizer):
    """k-means of the frames, then of what is left, and so on."""

    model_type = "residual_kmeans"

    def _fit(self, frames: Tensor, seed: int, progress: bool) -> None:
        residual = frames.cpu().clone()
        bar = progress_bar("k-means", total=self.n_codebooks, unit="level", show=progress)
        with bar:
            for k in range(self.n_codebooks):
                rows = kmeans(residual, self.codebook_size, seed + k)
                self.codebooks[k] = rows
                level = Level(rows, rows)
                for part in residual.split(CHUNK):  # [n, R] distances would fill the memory
                    part -= rows[argmax(-level.distances(part, "latent"))]
                bar.update()


class LocalSearchQuantizer(AdditiveQuantizer):
    """Codebooks that are fitted together by local search, LSQ (Martinez et al. 2018).

    faiss fits the codebooks. Its own search for codes is random, and the codes of a frame depend on
    the frames beside it. Here, beam search or greedy search finds codes, and then `_SWEEPS` sweeps
    over the codebooks replace one code at a time if that lowers the error. On 3,980 frames of
    speech-16k that were not fitted (8 x 256, `n_rounds` 3), faiss' search leaves .125 of the
    variance, beam 32 .128, beam 16 .131 and greedy .153. Residual k-means with beam 16 leaves .101.

    Args:
        dim, n_codebooks, codebook_size: D, K and R; R is a power of two.
        n_rounds: rounds of fitting.
    """

    model_type = "local_search"
    nested: ClassVar[bool] = False

    def __init__(
        self, *, dim: int, n_codebooks: int = 8, codebook_size: int = 1024, n_rounds: int = 25
    ) -> None:
        super().__init__(dim=dim, n_codebooks=n_codebooks, codebook_size=codebook_size)
        if codebook_size & (codebook_size - 1):
            low = 1 << (codebook_size.bit_length() - 1)
            raise ValueError(
                f"codebook_size = {codebook_size}: local search needs a power of two, such as "
                f"{low} or {2 * low}"
            )
        if n_rounds < 1:
            raise ValueError(f"n_rounds = {n_rounds}: must be at least 1")
        self.config["n_rounds"] = self.n_rounds = n_rounds

    def _fit(self, frames: Tensor, seed: int, progress: bool) -> None:
        faiss = require("faiss", "train")
        tools = require("faiss.contrib.inspect_tools", "train")
        bits = self.codebook_size.bit_length() - 1
        search = faiss.LocalSearchQuantizer(self.dim, self.n_codebooks, bits)
        search.train_iters, search.random_seed = self.n_rounds, seed
        with one_faiss_thread(faiss):
            search.train(frames.cpu().contiguous().numpy())
        found = torch.stack(
            [torch.from_numpy(rows) for rows in tools.get_additive_quantizer_codebooks(search)]
        )
        spread = (found - found.mean(1, keepdim=True)).square().sum((1, 2))
        self.codebooks.copy_(found[spread.argsort(descending=True, stable=True)])

    def _encode(self, frames: Tensor, n_codebooks: int, beam: int) -> Tensor:
        levels = self.levels()
        codes = self._sweep(frames, self._greedy(frames, levels))
        if beam == 1:
            return codes
        search = Search(beam, "latent")
        found = search_codes(levels, frames.T[None], codes.T[None], search)[0].T
        return self._sweep(frames, found)

    def _sweep(self, frames: Tensor, codes: Tensor) -> Tensor:
        """Return codes that no single change to a codebook's nearest row improves by much."""
        codes = codes.clone()
        for _ in range(_SWEEPS):
            for k, rows in enumerate(self.codebooks):
                others = self._decode(codes) - rows[codes[:, k]]
                codes[:, k] = argmax(-Level(rows, rows).distances(frames - others, "latent"))
        return codes


def kmeans(frames: Tensor, size: int, seed: int) -> Tensor:
    """Return `size` centres of frames [n, D] by faiss' k-means, 25 rounds on up to 256 * size.

    The centres do not depend on the number of threads.
    """
    faiss = require("faiss", "train")
    run = faiss.Kmeans(
        frames.shape[1],
        size,
        niter=25,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=256,
    )
    with one_faiss_thread(faiss):
        run.train(frames.cpu().contiguous().numpy())
    return torch.from_numpy(run.centroids.copy()).to(frames)


@contextmanager
def one_faiss_thread(faiss: Any) -> Iterator[None]:
    """Make faiss use one thread inside the `with` block: more threads sum in another order."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)
