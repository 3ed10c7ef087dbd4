"""Layers of ESC: attention in windows that shift, changes of scale, and product quantizers.

Names of the parameters are those of the published weights. Features are [B, H, W, C]: H bands of
frequency, W frames.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["Layer", "Merge", "PatchDeEmbed", "PatchEmbed", "Split", "Stream"]

_OTHER_REGION = -100.0  # added to attention between regions that the shift brought together


class _Attention(nn.Module):
    """Attention inside windows [..., n, C] of n = window_size ** 2 places."""

    def __init__(self, dim: int, heads: int, window_size: int) -> None:
        super().__init__()
        if not heads or dim % heads:
            raise ValueError(f"{heads} heads for {dim} channels: the channels must be a multiple")
        self.heads, self.window_size = heads, window_size
        table = torch.zeros((2 * window_size - 1) ** 2, heads)
        self.relative_position_bias_table = nn.Parameter(table)
        self.qkv = nn.Linear(dim, 3 * dim)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        q, k, v = (y.unflatten(-1, (self.heads, -1)).transpose(-3, -2) for y in self._split(x))
        bias = self._bias() if mask is None else self._bias() + mask[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias)
        return self.proj(mixed.transpose(-3, -2).flatten(-2))

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.qkv(x).chunk(3, dim=-1)

    def _bias(self) -> Tensor:
        """Bias [heads, n, n], by the rows and columns between two places."""
        table = self.relative_position_bias_table
        steps = torch.arange(self.window_size, device=table.device)
        between = steps[:, None] - steps + self.window_size - 1
        rows, columns = between[:, None, :, None], between[None, :, None, :]
        index = rows * (2 * self.window_size - 1) + columns
        return table[index.flatten(0, 1).flatten(1)].permute(2, 0, 1)


class _FeedForward(nn.Module):
    def __init__(self, dim: int, width: int) -> None:
        super().__init__()
        self.linear_1, self.linear_2 = nn.Linear(dim, width), nn.Linear(width, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear_2(F.gelu(self.linear_1(x)))


class _Block(nn.Module):
    """Attention and a feed-forward network, each after a layer norm.

    Features are padded with zeros to whole windows. With a shift, windows start inside the windows
    of the block before; the last ones wrap around, and are masked.
    """

    def __init__(self, dim: int, heads: int, window_size: int, shift: int, width: int) -> None:
        super().__init__()
        self.window_size, self.shift = window_size, shift
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = _Attention(dim, heads, window_size)
        self.mlp = _FeedForward(dim, width)

    def forward(self, x: Tensor) -> Tensor:
        height, width = x.shape[1:3]
        side = self.window_size
        padded = F.pad(self.norm1(x), (0, 0, 0, -width % side, 0, -height % side))
        size = padded.shape[1:3]
        mask = None
        if self.shift:
            padded = padded.roll((-self.shift, -self.shift), (1, 2))
            mask = self._mask(size[0], size[1], x.device)
        mixed = self._join(self.attn(self._windows(padded), mask), *size)
        mixed = mixed.roll((self.shift, self.shift), (1, 2)) if self.shift else mixed
        x = x + mixed[:, :height, :width]
        return x + self.mlp(self.norm2(x))

    def _windows(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> windows [B, count, n, C]."""
        side = self.window_size
        tiles = x.unflatten(2, (-1, side)).unflatten(1, (-1, side)).transpose(2, 3)
        return tiles.flatten(3, 4).flatten(1, 2)

    def _join(self, windows: Tensor, height: int, width: int) -> Tensor:
        """Windows [B, count, n, C] -> [B, height, width, C]."""
        side = self.window_size
        tiles = windows.unflatten(2, (side, side)).unflatten(1, (height // side, width // side))
        return tiles.transpose(2, 3).flatten(3, 4).flatten(1, 2)

    def _mask(self, height: int, width: int, device: torch.device) -> Tensor:
        """Attention mask [count, n, n] between places of each window; it is added."""

        def parts(size: int) -> Tensor:
            place = torch.arange(size, device=device)
            return (place >= size - self.window_size).long() + (place >= size - self.shift)

        region = 3 * parts(height)[:, None] + parts(width)
        places = self._windows(region[None, ..., None])[0, ..., 0]
        return _OTHER_REGION * (places[:, None] != places[:, :, None])


class Merge(nn.Module):
    """Join pairs of bands."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(2 * dim)
        self.down = nn.Linear(2 * dim, out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(self.norm(x.unflatten(1, (-1, 2)).transpose(2, 3).flatten(3)))


class Split(nn.Module):
    """Make two bands of each."""

    def __init__(self, dim: int, out_dim: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.up = nn.Linear(dim, 2 * out_dim, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(self.norm(x)).unflatten(3, (2, -1)).transpose(2, 3).flatten(1, 2)


class Layer(nn.Module):
    """Blocks with and without a shift in turn, then another scale."""

    def __init__(
        self,
        dim: int,
        heads: int,
        depth: int,
        window_size: int,
        mlp_ratio: float,
        scale: nn.Module | None = None,
    ) -> None:
        super().__init__()
        shifts = [window_size // 2 * (i % 2) for i in range(depth)]
        width = int(dim * mlp_ratio)
        self.swint_blocks = nn.ModuleList(
            _Block(dim, heads, window_size, shift, width) for shift in shifts
        )
        self.subsample = scale

    def forward(self, x: Tensor) -> Tensor:
        for block in self.swint_blocks:
            x = block(x)
        return x if self.subsample is None else self.subsample(x)


class PatchEmbed(nn.Module):
    """Make features of patches of a spectrum."""

    def __init__(self, channels: int, dim: int, patch: list[int]) -> None:
        super().__init__()
        self.proj = nn.Conv2d(channels, dim, (patch[0], patch[1]), (patch[0], patch[1]))
        self.norm = nn.LayerNorm(dim)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, F, frames] -> [B, H, W, C]."""
        return self.norm(self.proj(x).permute(0, 2, 3, 1))


class PatchDeEmbed(nn.Module):
    """Make a spectrum of features."""

    def __init__(self, channels: int, dim: int, patch: list[int]) -> None:
        super().__init__()
        self.patch = patch
        self.de_proj1 = nn.Conv2d(dim, dim * patch[0] * patch[1], 5, padding=2)
        self.de_proj2 = nn.Conv2d(dim, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> [B, C, F, frames]."""
        parts = self.de_proj1(x.permute(0, 3, 1, 2)).unflatten(1, (*self.patch, -1))
        # [B, rows, columns, C, H, W] -> [B, C, H, rows, W, columns]
        return self.de_proj2(parts.permute(0, 3, 4, 1, 5, 2).flatten(4).flatten(2, 3))


class _Codebook(nn.Module):
    def __init__(self, codebook_size: int, dim: int, *, by_angle: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(codebook_size, dim)
        self.by_angle = by_angle

    def forward(self, x: Tensor) -> Tensor:
        """[B, T, d] -> indices [B, T] of the nearest rows."""
        rows = self.embedding.weight
        if self.by_angle:
            x, rows = F.normalize(x, dim=-1), F.normalize(rows, dim=-1)
        squares = x.square().sum(-1, keepdim=True), rows.square().sum(-1)
        return (squares[0] - 2 * x @ rows.mT + squares[1]).argmin(-1)


class Stream(nn.Module):
    """A product quantizer: groups of a vector of `overlap` frames, each with its codebook."""

    def __init__(
        self, size: int, overlap: int, groups: int, codebook: tuple[int, int], *, by_angle: bool
    ) -> None:
        super().__init__()
        self.overlap = overlap
        each = size * overlap // groups
        self.sizes = [each] * (groups - 1) + [size * overlap - each * (groups - 1)]
        make = [_Codebook(*codebook, by_angle=by_angle) for _ in self.sizes]
        self.vqs = nn.ModuleList(make)
        dim = codebook[1]
        self.down_projs = nn.ModuleList(nn.Linear(n, dim, bias=False) for n in self.sizes)
        self.up_projs = nn.ModuleList(nn.Linear(dim, n, bias=False) for n in self.sizes)

    def encode(self, x: Tensor) -> Tensor:
        """[B, H, W, C] -> codes [B, groups, W / overlap]."""
        vectors = x.permute(0, 2, 3, 1).flatten(2).unflatten(1, (-1, self.overlap)).flatten(2)
        triples = zip(self.vqs, self.down_projs, vectors.split(self.sizes, 2), strict=True)
        return torch.stack([vq(down(part)) for vq, down, part in triples], dim=1)

    def decode(self, codes: Tensor, height: int) -> Tensor:
        """Codes [B, k, T] of the first groups -> [B, H, T * overlap, C]; other groups are zeros."""
        triples = zip(self.vqs, self.up_projs, codes.unbind(1), strict=False)
        found = torch.cat([up(vq.embedding(part)) for vq, up, part in triples], dim=2)  # type: ignore[operator, union-attr]
        vectors = F.pad(found, (0, sum(self.sizes) - found.shape[2]))
        frames = vectors.unflatten(2, (self.overlap, -1)).flatten(1, 2)
        return frames.unflatten(2, (-1, height)).permute(0, 3, 1, 2)
