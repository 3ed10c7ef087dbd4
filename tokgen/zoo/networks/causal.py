"""Causal layers of the STFT codec, whole or chunk by chunk.

A frame depends on the frames before it, and on at most `lookahead` after it. Names and shapes of
the parameters are those of the layers that look both ways, so `fit_taps` can start a causal codec
from one that is not.
"""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.nn.dense import linear

__all__ = ["CausalBlock", "CausalStack", "causal_window", "fit_taps"]


def causal_window(n_fft: int) -> Tensor:
    """Return a Hann window [n_fft] that is sampled between its zeros: no weight is 0."""
    return torch.sin(torch.pi * (torch.arange(n_fft) + 0.5) / n_fft).square()


class CausalBlock(nn.Module):
    """A `ConvNeXtBlock` that sees no more than `lookahead` frames after its own.

    The output of `step` is `lookahead` frames late: output t belongs to input t - lookahead.
    """

    def __init__(
        self, width: int, expansion: int, kernel_size: int, scale: float, lookahead: int = 0
    ) -> None:
        super().__init__()
        self.left = kernel_size - 1 - lookahead  # frames seen before the block's own
        self.depthwise = nn.Conv1d(width, width, kernel_size, groups=width)
        self.norm = nn.LayerNorm(width)
        self.expand = nn.Linear(width, width * expansion)
        self.contract = nn.Linear(width * expansion, width)
        self.scale = nn.Parameter(torch.full((width,), scale))

    def step(self, x: Tensor, past: Tensor | None) -> tuple[Tensor, Tensor]:
        """Continue a sequence.

        Args:
            x: the next frames [B, t, C].
            past: the result of the step before; None starts a sequence.
        Returns:
            output [B, t, C], and what the next step needs.
        """
        seen, past = _continued(x, past, self.depthwise.kernel_size[0] - 1)
        y = cast(Tensor, self.depthwise.bias)
        for tap, weight in enumerate(self.depthwise.weight[:, 0].unbind(1)):
            y = y + seen[:, tap : tap + x.shape[1]] * weight
        y = self.contract(F.gelu(self.expand(self.norm(y))))
        return seen[:, self.left : self.left + x.shape[1]] + self.scale * y, past


class CausalStack(nn.Module):
    """A `Stack` of causal blocks. The first one sees `lookahead` frames ahead, the others none."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        *,
        width: int,
        depth: int,
        expansion: int,
        kernel_size: int,
        lookahead: int = 0,
    ) -> None:
        super().__init__()
        self.embed = nn.Conv1d(n_in, width, 3) if n_in < width else nn.Linear(n_in, width)
        self.left = 2  # frames that the convolution of `embed` sees before its own
        self.norm_in = nn.LayerNorm(width)
        self.blocks = nn.ModuleList(
            CausalBlock(width, expansion, kernel_size, 1 / depth, 0 if i else lookahead)
            for i in range(depth)
        )
        self.norm_out = nn.LayerNorm(width)
        self.head = nn.Linear(width, n_out)
        # frames seen on either side
        self.before = 2 * (n_in < width) + depth * (kernel_size - 1) - lookahead
        self.after = lookahead

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Run a whole sequence [B, T, C], as one step. No mask is needed: padding comes later."""
        return self.step(x, [])[0]

    def step(self, x: Tensor, past: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
        """Continue a sequence as `CausalBlock.step` does; an empty list starts one."""
        before = iter(past)
        now: list[Tensor] = []
        if isinstance(self.embed, nn.Conv1d):
            seen, kept = _continued(x, next(before, None), self.left)
            now.append(kept)
            taps = [seen[:, tap : tap + x.shape[1]] for tap in range(self.left + 1)]
            weight = self.embed.weight.transpose(1, 2).flatten(1)
            x = linear(torch.cat(taps, dim=-1), weight, self.embed.bias)
        else:
            x = self.embed(x)
        x = self.norm_in(x)
        for block in self.blocks:
            x, kept = cast(CausalBlock, block).step(x, next(before, None))
            now.append(kept)
        return self.head(self.norm_out(x)), now


def _continued(x: Tensor, past: Tensor | None, n: int) -> tuple[Tensor, Tensor]:
    """Return frames [B, t, C] behind the `n` before them, zeros at first, and the last `n`."""
    seen = F.pad(x, (0, 0, n, 0)) if past is None else torch.cat([past, x], dim=1)
    return seen, seen[:, x.shape[1] :]


def fit_taps(model: nn.Module, other: nn.Module) -> dict[str, Tensor]:
    """Return the weights of `other` for `model`, which sees other frames around its own.

    Each tap of a convolution over time keeps the frame that it sees. The weight of a tap that
    `model` lacks is added to the nearest tap that it has, as if the frames beyond repeated the
    last one; taps that `other` lacks begin with 0.

    Args:
        model, other: networks of the STFT codec with parameters of the same shapes.
    """
    weights, theirs = dict(other.state_dict()), dict(other.named_modules())
    for name, layer in model.named_modules():
        if not hasattr(layer, "left"):
            continue
        shift = layer.left - theirs[name].left
        key = f"{name}.depthwise.weight" if hasattr(layer, "depthwise") else f"{name}.embed.weight"
        if shift and weights[key].ndim == 3:
            last = weights[key].shape[-1] - 1
            taps = torch.arange(last + 1, device=weights[key].device) + shift
            moved = torch.zeros_like(weights[key])
            weights[key] = moved.index_add_(-1, taps.clamp(0, last), weights[key])
    return weights
