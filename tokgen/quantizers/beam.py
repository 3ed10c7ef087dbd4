"""Beam search over the levels of a residual quantizer.

Greedy quantization chooses the best row of each level and never goes back. A beam search keeps the
`beam` best paths of rows after every level. `DISTANCES` are what it can minimise:

    projected   sum over levels of the distance by which a level chooses its row: between unit
                vectors for a lookup by angle, as in DAC, else between residual and row
    latent      squared error of all levels together against the latents

A quantizer that is trained with its codec is faithful to its latents only in the projected space,
level by level: what it returns can be far from the latents. There, use "projected". Use "latent"
for rows that were fitted to the latents, as in EnCodec or after k-means.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.spec import DISTANCES, Search
from tokgen.codec.stages import ResidualLevels
from tokgen.nn.dense import linear

__all__ = [
    "MAX_SCORES",
    "Level",
    "SearchedLevels",
    "factorized_level",
    "path_error",
    "search_codes",
]

MAX_SCORES = 1 << 19  # scores of candidates in memory; 2 MB stay in the caches
_GROUP = 32  # scores


@dataclass(frozen=True)
class Level:
    """One level of a residual quantizer, with R rows.

    Attributes:
        rows: codebook [R, d].
        outputs: what each row adds to the quantized latents, [R, D].
        weight, bias: projection of the residual, [d, D] and [d]; None if d = D without one.
        by_angle: the level chooses the row at the smallest angle, not the nearest.
    """

    rows: Tensor
    outputs: Tensor
    weight: Tensor | None = None
    bias: Tensor | None = None
    by_angle: bool = False

    @property
    def distance(self) -> str:
        """The distance that suits the quantizer, one of `DISTANCES`."""
        return "projected" if self.by_angle else "latent"

    def distances(self, residual: Tensor, distance: str) -> Tensor:
        """Return the distance of residuals [..., D] from each row, [..., R]."""
        if distance == "latent":
            return _squared(residual, self.outputs)
        projected = residual if self.weight is None else linear(residual, self.weight, self.bias)
        if not self.by_angle:
            return _squared(projected, self.rows)
        projected, rows = F.normalize(projected, dim=-1), F.normalize(self.rows, dim=-1)
        return 2 - 2 * linear(projected, rows)


def factorized_level(codebook: nn.Module, in_proj: Any, out_proj: Any) -> Level:
    """Return DAC's level: linear layers or convolutions of kernel size 1, and an embedding."""
    layers: tuple[Any, ...] = (codebook, in_proj, out_proj)
    rows, into, out = (layer.weight.detach().float().flatten(1) for layer in layers)
    outputs = linear(rows, out, out_proj.bias.detach().float())
    return Level(rows, outputs, into, in_proj.bias.detach().float(), by_angle=True)


class SearchedLevels(ResidualLevels):
    """`ResidualLevels` with beam search; comes before other bases of a codec."""

    search: Search | None

    def quantize(self, latents: Tensor) -> Tensor:
        greedy = super().quantize(latents)
        if self.search is None:
            return greedy
        return search_codes(self.search_levels(), latents, greedy, self.search)

    def search_levels(self) -> list[Level]:
        return [Level(rows, rows) for rows in self.code_vectors()]


@torch.no_grad()
def search_codes(
    levels: Sequence[Level], latents: Tensor, greedy: Tensor, search: Search
) -> Tensor:
    """Return the codes of the best path of a beam search.

    A frame keeps its greedy codes unless the search finds a path of smaller distance. The codes of
    a frame do not depend on the other frames.

    Args:
        latents: [B, D, T].
        greedy: codes of the quantizer itself, [B, K, T].
        search: the beam, the distance and the levels.
    Returns:
        codes [B, k, T], k = search.n_codebooks, or K if that is None.
    """
    levels = levels[: search.n_codebooks]
    frames = latents.mT.flatten(0, 1).float()
    best = greedy[:, : len(levels)].mT.flatten(0, 1)  # [M, k]
    step = max(1, MAX_SCORES // (search.beam * len(levels[0].rows)))
    with torch.autocast(latents.device.type, enabled=False):
        parts = zip(frames.split(step), best.split(step), strict=True)
        found = [_best_codes(levels, *part, search.beam, search.distance) for part in parts]
    return torch.cat(found).unflatten(0, (len(latents), -1)).mT.contiguous()


def path_error(levels: Sequence[Level], frames: Tensor, codes: Tensor, distance: str) -> Tensor:
    """Return the distance that a search minimises, for given codes.

    Args:
        frames: latents [M, D].
        codes: [M, k], k <= K coarse levels.
    Returns:
        distances [M].
    """
    if distance not in DISTANCES:
        raise ValueError(f"distance {distance!r} is unknown; use {', '.join(DISTANCES)}")
    residual, total = frames, frames.new_zeros(len(frames))
    for level, code in zip(levels, codes.unbind(1), strict=False):
        if distance == "projected":
            found = level.distances(residual, distance)
            total = total + found.gather(1, code[:, None])[:, 0]
        residual = residual - level.outputs[code]
    return residual.square().sum(-1) if distance == "latent" else total


def _best_codes(
    levels: Sequence[Level], frames: Tensor, greedy: Tensor, beam: int, distance: str
) -> Tensor:
    """Return codes [M, k] of the best of the beam's paths and the greedy path."""
    residual, total = frames[:, None], frames.new_zeros(len(frames), 1)  # [M, P, D], [M, P]
    paths = greedy.new_zeros(len(frames), 1, 0)  # [M, P, levels so far]
    for level in levels:
        found = level.distances(residual, distance)
        if distance == "projected":
            found = found + total[..., None]
        total, kept = _smallest(found.flatten(1), beam)
        code, parent = kept % found.shape[-1], (kept // found.shape[-1])[..., None]
        residual = residual.gather(1, parent.expand(-1, -1, residual.shape[-1]))
        residual = residual - level.outputs[code]
        paths = paths.gather(1, parent.expand(-1, -1, paths.shape[-1]))
        paths = torch.cat([paths, code[..., None]], dim=-1)
    first = paths.gather(1, total.argmin(1)[:, None, None].expand(-1, -1, len(levels)))[:, 0]
    errors = [path_error(levels, frames, codes, distance) for codes in (first, greedy)]
    return torch.where((errors[0] < errors[1])[:, None], first, greedy)


def _smallest(scores: Tensor, n: int) -> tuple[Tensor, Tensor]:
    """Return the n smallest values of scores [M, C], or all if there are fewer, and their places.

    They lie in the n groups of smallest minimum, which are few enough for `topk`.
    """
    size = scores.shape[1]
    if size % _GROUP or size < 2 * n * _GROUP:
        return scores.topk(min(n, size), largest=False)
    groups = scores.unflatten(1, (-1, _GROUP))
    best = groups.amin(-1).topk(n, largest=False, sorted=False).indices  # [M, n]
    near = groups.gather(1, best[..., None].expand(-1, -1, _GROUP)).flatten(1)
    values, at = near.topk(n, largest=False)
    return values, best.gather(1, at // _GROUP) * _GROUP + at % _GROUP


def _squared(x: Tensor, rows: Tensor) -> Tensor:
    """Return the squared distances of x [..., n] from rows [R, n], [..., R]."""
    product = linear(x, rows)
    return x.square().sum(-1, keepdim=True) - 2 * product + rows.square().sum(-1)
