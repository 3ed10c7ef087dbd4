"""DAC's factorised residual vector quantizer, with L2-normalised lookup in few dimensions.

Kumar et al. 2023, "High-Fidelity Audio Compression with Improved RVQGAN".
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.spec import Quantized
from tokgen.codec.stages import in_float32
from tokgen.extras import require
from tokgen.nn.dense import argmax, linear
from tokgen.quantizers.beam import Level, factorized_level

__all__ = ["FactorizedQuantizer", "ResidualQuantizer", "quantize_levels", "start_levels"]


class FactorizedQuantizer(nn.Module):
    """One level: project D -> d, choose the codebook row nearest by angle, project d -> D."""

    def __init__(self, latent_dim: int, codebook_size: int, codebook_dim: int) -> None:
        super().__init__()
        self.in_proj = nn.Linear(latent_dim, codebook_dim)
        self.out_proj = nn.Linear(codebook_dim, latent_dim)
        self.codebook = nn.Embedding(codebook_size, codebook_dim)

    def lookup(self, projected: Tensor, directions: Tensor | None = None) -> Tensor:
        """projected [..., d] -> codes [...], the row at the smallest angle.

        Args:
            projected: see above.
            directions: result of `directions`; None computes it.
        """
        if directions is None:
            directions = self.directions()
        return argmax(linear(F.normalize(projected.float(), dim=-1), directions))

    def directions(self) -> Tensor:
        """Return the codebook with rows of length 1, float32 [codebook_size, d]."""
        return F.normalize(self.codebook.weight.float(), dim=-1)


class ResidualQuantizer(nn.Module):
    """K levels; each quantizes the residual of the levels before it.

    Args:
        latent_dim, n_codebooks, codebook_dim: D, K and d.
        codebook_size: entries per level.
        dropout: share of training items that keep a random number of levels, 1..K.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        n_codebooks: int = 8,
        codebook_size: int = 1024,
        codebook_dim: int = 8,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.dropout = dropout
        self.levels: list[FactorizedQuantizer] = nn.ModuleList(  # type: ignore[assignment]
            FactorizedQuantizer(latent_dim, codebook_size, codebook_dim) for _ in range(n_codebooks)
        )

    @in_float32
    def forward(self, latents: Tensor, mask: Tensor | None = None) -> Quantized:
        """Quantize latents [B, D, T].

        Args:
            latents: [B, D, T].
            mask: [B, K, T], see `quantize_levels`; None draws it by `dropout`.
        """
        if mask is None:
            mask = self._drop_levels(len(latents), latents.device)
        return quantize_levels(self.levels, latents, mask)

    def _drop_levels(self, batch: int, device: torch.device) -> Tensor:
        """Draw a mask [B, K, 1]."""
        n = len(self.levels)
        keep = torch.full((batch,), n, device=device)
        if self.training and self.dropout > 0:
            dropped = torch.rand(batch, device=device) < self.dropout
            keep = torch.where(dropped, torch.randint(1, n + 1, (batch,), device=device), keep)
        return (torch.arange(n, device=device) < keep[:, None]).float()[..., None]

    @in_float32
    def encode(
        self, latents: Tensor, directions: Sequence[Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """latents [B, D, T] -> codes [B, K, T], projected_latents [B, K*d, T].

        Args:
            latents: see above.
            directions: result of `directions` for the weights as they are, to compute it once for
                many calls; None computes it.
        """
        residual = latents.mT
        codes, projections = [], []
        for level, rows in zip(self.levels, directions or self.directions(), strict=True):
            projected = level.in_proj(residual)
            code = level.lookup(projected, rows)
            residual = residual - level.out_proj(level.codebook(code))
            codes.append(code)
            projections.append(projected)
        return torch.stack(codes, 1), torch.cat(projections, -1).mT

    def directions(self) -> list[Tensor]:
        """Return the codebooks with rows of length 1, float32 [codebook_size, d] each."""
        return [level.directions() for level in self.levels]

    def search_levels(self) -> list[Level]:
        """Return the levels for `tokgen.quantizers.beam`."""
        return [factorized_level(x.codebook, x.in_proj, x.out_proj) for x in self.levels]

    def codebook_rows(self, codes: Tensor) -> Tensor:
        """codes [B, k, T] -> rows [B, k*d, T]."""
        return torch.cat(self._rows(codes), -1).mT

    @in_float32
    def decode(self, codes: Tensor, depth: Tensor | None = None) -> Tensor:
        """codes [B, k, T] with k <= K coarse levels -> quantized [B, D, T].

        Args:
            codes: see above; they must be valid past the depth too.
            depth: int64 [B, T], the number of levels that each frame has; None means all.
        """
        pairs = zip(self.levels, self._rows(codes), strict=False)
        parts = torch.stack([level.out_proj(rows) for level, rows in pairs])  # [k, B, T, D]
        if depth is not None:
            level = torch.arange(len(parts), device=codes.device)[:, None, None]
            parts = parts * (level < depth)[..., None]
        return parts.sum(0).mT

    def _rows(self, codes: Tensor) -> list[Tensor]:
        pairs = zip(self.levels, codes.unbind(1), strict=False)
        return [level.codebook(indices) for level, indices in pairs]

    def code_vectors(self) -> Tensor:
        """Codebooks [K, codebook_size, d]."""
        return torch.stack([level.codebook.weight for level in self.levels])

    @torch.no_grad()
    def init_from_data(self, latents: Tensor) -> Tensor:
        """Initialise every level from data.

        in_proj projects onto the leading singular vectors of the residual; out_proj is its
        transpose. The codebook comes from k-means over the directions of the projected frames,
        because the lookup is by angle; each row is the mean of its members.

        Args:
            latents: frames [M, D]; M = 40 * codebook_size is enough.
        Raises:
            ModuleNotFoundError: faiss is missing; the error names the extra.
            ValueError: fewer frames than rows.
        Returns:
            share of the latents' energy that remains after each level, [K].
        """
        return start_levels(self.levels, latents, _start_level)


def start_levels(
    levels: Iterable[Any], latents: Tensor, start: Callable[[Any, Tensor], Tensor]
) -> Tensor:
    """Start the levels of a residual quantizer one after another.

    Args:
        levels: levels, coarse first.
        latents: frames [M, D].
        start: level and residual [M, D] -> what the level makes of the residual, once started.
    Returns:
        share of the latents' energy that remains after each level, [K].
    """
    residual = latents.float()
    energy = (residual - residual.mean(0)).pow(2).sum()
    left = []
    for level in levels:
        residual = residual - start(level, residual)
        left.append(residual.pow(2).sum() / energy)
    return torch.stack(left)


def _start_level(level: FactorizedQuantizer, residual: Tensor) -> Tensor:
    """Start a level as `ResidualQuantizer.init_from_data` describes."""
    size, dim = level.codebook.weight.shape
    if len(residual) < size:
        raise ValueError(
            f"{len(residual)} frames for {size} codebook rows: pass at least as many frames"
        )
    mean = residual.mean(0)
    _, vectors = torch.linalg.eigh((residual - mean).T @ (residual - mean))
    basis = vectors.flip(1)[:, :dim]  # [D, d]
    level.in_proj.weight.copy_(basis.T)
    level.in_proj.bias.copy_(-basis.T @ mean)
    level.out_proj.weight.copy_(basis)
    level.out_proj.bias.copy_(mean)
    projected = level.in_proj(residual)
    level.codebook.weight.copy_(_angular_kmeans(projected, size))
    return level.out_proj(level.codebook(level.lookup(projected)))


@in_float32
def quantize_levels(levels: Iterable[Any], latents: Tensor, mask: Tensor) -> Quantized:
    """Quantize latents, each level what the level before it left.

    The losses are sums over levels of the mean squared error, as in DAC. Levels that are not kept
    add nothing to them and to the output, but leave their residual like others.

    Args:
        levels: have the layers and `lookup` of a `FactorizedQuantizer`.
        latents: [B, D, T].
        mask: [B, K, T] or [B, K, 1], 1 for the levels to keep and 0 for others.
    """
    residual = latents.mT
    total = torch.zeros_like(residual)
    codes, projections = [], []
    commitment = codebook = latents.new_zeros(())
    for k, level in enumerate(levels):
        projected = level.in_proj(residual)
        code = level.lookup(projected)
        row = level.codebook(code)
        on = mask[:, k, :, None]
        commitment = commitment + (on.detach() * (projected - row.detach()) ** 2).mean()
        codebook = codebook + (on.detach() * (projected.detach() - row) ** 2).mean()
        out = level.out_proj(projected + (row - projected).detach())
        total = total + on * out
        residual = residual - out
        codes.append(code)
        projections.append(projected)
    projected_latents = torch.cat(projections, -1).mT
    return Quantized(total.mT, torch.stack(codes, 1), projected_latents, commitment, codebook)


def _angular_kmeans(frames: Tensor, size: int) -> Tensor:
    """Run k-means by angle; return centres [size, d], each the mean of its members."""
    kmeans = require("faiss", "train").Kmeans(
        frames.shape[1],
        size,
        niter=20,
        seed=0,
        spherical=True,
        min_points_per_centroid=1,
        max_points_per_centroid=256,
    )
    directions = F.normalize(frames, dim=-1)
    kmeans.train(directions.cpu().numpy())
    centres = torch.from_numpy(kmeans.centroids).to(frames)
    code = (directions @ F.normalize(centres, dim=-1).T).argmax(-1)
    count = torch.bincount(code, minlength=size)[:, None]
    total = torch.zeros_like(centres).index_add_(0, code, frames)
    return torch.where(count > 0, total / count.clamp(min=1), centres)
