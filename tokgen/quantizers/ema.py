"""EnCodec's residual quantizer in training: codebooks that are moving averages of what they code.

Défossez et al. 2022, section 3.2. vector-quantize-pytorch runs the levels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.spec import Quantized
from tokgen.codec.stages import in_float32
from tokgen.extras import require
from tokgen.quantizers.residual import start_levels

__all__ = ["EmaQuantizer"]


class EmaQuantizer(nn.Module):
    """K levels; each quantizes the residual of the levels before it to the nearest entry.

    In training, an entry moves to the mean of the latents that chose it. Codebooks start from
    k-means of the first batch. An entry that is chosen less often than `dead_below` times per batch
    on average is replaced by a latent of the batch: the entry, its sum and its count. With several
    processes, a batch is that of all of them, and all have the same codebooks.

    Args:
        latent_dim, n_codebooks: D and K.
        codebook_size: entries per level.
        decay: of the averages, per batch.
        dead_below: see above; 0 replaces none.
        iterations: of k-means.
    Raises:
        ModuleNotFoundError: vector-quantize-pytorch is missing; the error names the extra.
    """

    def __init__(
        self,
        *,
        latent_dim: int,
        n_codebooks: int,
        codebook_size: int = 1024,
        decay: float = 0.99,
        dead_below: float = 2.0,
        iterations: int = 50,
    ) -> None:
        super().__init__()
        level = require("vector_quantize_pytorch", "train").VectorQuantize
        require("loguru", "train").logger.disable("vector_quantize_pytorch")  # it prints warnings
        self.levels: Any = nn.ModuleList(
            level(
                latent_dim,
                codebook_size=codebook_size,
                decay=decay,
                kmeans_init=True,
                kmeans_iters=iterations,
                threshold_ema_dead_code=dead_below,
                commitment_weight=0.0,
                rotation_trick=False,
            )
            for _ in range(n_codebooks)
        )

    @in_float32
    def forward(
        self,
        latents: Tensor,
        n_codebooks: int | None = None,
        *,
        learn: bool = True,
        mask: Tensor | None = None,
    ) -> Quantized:
        """Quantize latents [B, D, T] with the first levels, and move their codebooks.

        The gradient of `quantized` goes straight through to the latents, and the commitment loss of
        every level has a gradient. The loss is a sum over levels of mean squared errors. There is
        no codebook loss.

        Args:
            latents: [B, D, T].
            n_codebooks: levels to use; None uses all K.
            learn: False leaves the codebooks as they are. In eval mode they never move.
            mask: [B, K, T], 1 for the levels to keep and 0 for others, which add nothing to the
                loss and to the output, but leave their residual like others. Its gradient is that
                of the output. Codebooks follow all frames, kept or not: a stream of all levels
                uses them too, and few frames keep the last levels, whose entries would soon be
                replaced. None keeps all.
        """
        frames = residual = latents.mT
        total = torch.zeros_like(frames)
        commitment = latents.new_zeros(())
        codes = []
        for k, level in enumerate(self.levels[:n_codebooks]):
            row, code, _ = level(residual.detach(), freeze_codebook=not learn)
            row = row.detach()
            if mask is None:
                commitment = commitment + F.mse_loss(residual, row)
                total = total + row
            else:
                on = mask[:, k, :, None]
                commitment = commitment + (on.detach() * (residual - row) ** 2).mean()
                total = total + on * row
            residual = residual - row
            codes.append(code)
        if mask is None:
            total = frames + (total - frames).detach()
        else:
            total = total + (frames - frames.detach())
        zero = latents.new_zeros(())
        return Quantized(total.mT, torch.stack(codes, 1), latents, commitment, zero)

    @torch.no_grad()
    def init_from_data(self, latents: Tensor) -> Tensor:
        """Start every codebook that has not started by k-means of latents [M, D].

        Returns:
            share of the latents' energy that remains after each level, [K].
        """

        def start(level: Any, residual: Tensor) -> Tensor:
            return level(residual[None], freeze_codebook=True)[0][0]

        return start_levels(self.levels, latents, start)

    @torch.no_grad()
    def copy_to(self, layers: Iterable[Any]) -> None:
        """Copy the codebooks to the `layers` of transformers' `EncodecResidualVectorQuantizer`."""
        for ours, theirs in self._pairs(layers):
            theirs.embed.copy_(ours.embed[0])
            theirs.embed_avg.copy_(ours.embed_avg[0])
            theirs.cluster_size.copy_(ours.cluster_size[0])

    @torch.no_grad()
    def copy_from(self, layers: Iterable[Any]) -> None:
        """Copy the codebooks from such layers, and go on from them without k-means.

        Counts that are all zero, as in models that were not saved by a training, start at one
        above `dead_below`.
        """
        for ours, theirs in self._pairs(layers):
            ours.embed[0].copy_(theirs.embed)
            ours.embed_avg[0].copy_(theirs.embed_avg)
            ours.cluster_size[0].copy_(theirs.cluster_size)
            if not theirs.cluster_size.any():
                count = ours.threshold_ema_dead_code + 1
                ours.cluster_size.fill_(count)
                ours.embed_avg.copy_(count * ours.embed)
            ours.initted.fill_(True)

    def _pairs(self, layers: Iterable[Any]) -> Iterable[tuple[Any, Any]]:
        for level, layer in zip(self.levels, layers, strict=True):
            yield level._codebook, layer.codebook
