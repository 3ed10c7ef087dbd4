"""Variable bitrate: an importance network chooses how many levels each frame keeps.

VRVQ (Chae et al. 2024, "Variable Bitrate Residual Vector Quantization for Audio Coding"). With the
importance p of a frame, in (0, 1), a scale l and K levels, s = p * l * K, and the frame keeps the
levels k <= s: between one and K. The codes of a level do not depend on the number of levels, so an
utterance that was encoded once has every bitrate:

    codes, _ = quantizer.encode(latents)
    importance = network(feature)       # the output [B, C, T] of the encoder's last block
    depth = depth_of(importance, scale, n_codebooks)
    quantized = quantizer.decode(codes, depth)

In training, `quantize_variable` chooses the levels and runs the quantizer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.depth import depth_of
from tokgen.codec.spec import Quantized
from tokgen.codec.stages import in_float32
from tokgen.nn.dense import linear
from tokgen.quantizers.residual import quantize_levels
from tokgen.quantizers.settings import NETWORKS, WIDTHS, VariableSettings

__all__ = [
    "Allocation",
    "ImportanceNetwork",
    "VariableQuantized",
    "allocate",
    "quantize_variable",
    "surrogate",
]


def _logcosh(x: Tensor, alpha: float) -> Tensor:
    upper, lower = (F.softplus(2 * alpha * (x + side), threshold=30) for side in (0.5, -0.5))
    return 0.5 + (upper - lower - alpha) / (2 * alpha)


_SURROGATES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "logcosh": _logcosh,
    "square": lambda x, alpha: x.clamp(0, 1),
    "sigmoid": lambda x, alpha: torch.sigmoid(alpha * x),
}


def surrogate(x: Tensor, kind: str = "logcosh", alpha: float = 2.0) -> Tensor:
    """Return a smooth stand-in for the step 1[x >= 0], whose gradient trains the importance.

    "logcosh" is the paper's, 1/2 + ln(cosh(a (x + 1/2)) / cosh(a (x - 1/2))) / 2a, computed so that
    no `alpha` overflows. "square" is clip(x, 0, 1), for any `alpha`; "sigmoid" is sigmoid(a x).
    """
    return _SURROGATES[kind](x, alpha)


class ImportanceNetwork(nn.Module):
    """Convolutions with weight norm, and Snake before each of them.

    Args:
        feature_dim: channels C of the feature.
        kind: "paper" (five convolutions) or "public" (six, as in the authors' code).
        widths: channels between the convolutions; fewer than four leave convolutions out. The last
            convolution has one channel.
    Attributes:
        reach: frames on either side that the importance of a frame depends on.
    """

    def __init__(
        self, feature_dim: int, kind: str = "paper", widths: Sequence[int] = WIDTHS
    ) -> None:
        super().__init__()
        if kind not in NETWORKS:
            raise ValueError(f"importance network {kind!r}: known are {', '.join(NETWORKS)}")
        if not 0 < len(widths) <= len(WIDTHS):
            raise ValueError(f"widths = {tuple(widths)}: must be one to {len(WIDTHS)} numbers")
        kernels = NETWORKS[kind]
        sizes = [*[feature_dim] * (len(kernels) - len(WIDTHS)), *widths, 1]
        kernels = (*kernels[: len(sizes) - 2], kernels[-1])
        self.reach = sum(kernel // 2 for kernel in kernels)
        self.layers = nn.ModuleList(
            _SnakeConv(n_in, n_out, kernel)
            for n_in, n_out, kernel in zip(sizes[:-1], sizes[1:], kernels, strict=True)
        )

    @in_float32
    def forward(self, feature: Tensor, inside: Tensor | None = None) -> Tensor:
        """Compute the importance of frames.

        Args:
            feature: [B, C, T].
            inside: bool [B, T], False in the padding of shorter items; None if there is none.
        Returns:
            [B, T] in (0, 1).
        """
        x = feature.mT
        for layer in self.layers:
            x = layer(x if inside is None else x * inside[..., None])
        return torch.sigmoid(x[..., 0])


class _SnakeConv(nn.Module):
    """Snake and a convolution with weight norm, on [B, T, C]."""

    def __init__(self, n_in: int, n_out: int, kernel: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(n_in))
        self.weight_v = nn.Parameter(nn.Conv1d(n_in, n_out, kernel).weight.detach().clone())
        self.weight_g = nn.Parameter(self.weight_v.detach().norm(dim=(1, 2), keepdim=True))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        x = x + torch.sin(self.alpha * x).square() / (self.alpha + 1e-9)
        weight = self.weight_v * (self.weight_g / self.weight_v.norm(dim=(1, 2), keepdim=True))
        kernel = weight.shape[-1]
        seen = F.pad(x, (0, 0, kernel // 2, kernel // 2))
        taps = [seen[:, tap : tap + x.shape[1]] for tap in range(kernel)]
        # A product of matrices rounds a frame alike in every batch and window.
        return linear(torch.cat(taps, dim=-1), weight.transpose(1, 2).flatten(1), self.bias)


def _reached(importance: Tensor, scale: Tensor | float, n_codebooks: int) -> Tensor:
    """Return s [B, T]; level k is kept if k <= s."""
    if isinstance(scale, Tensor) and scale.ndim:
        scale = scale[:, None]
    return importance * scale * n_codebooks


@dataclass
class Allocation:
    """The levels that each frame of a batch keeps.

    Attributes:
        mask: [B, K, T], 1 for the levels that are kept and 0 for others. Its gradient with respect
            to the importance is that of the surrogate.
        depth: int64 [B, T], the number of levels that are kept.
        importance: [B, T].
        rate_loss: scalar, the mean importance of the items whose depth follows from it.
    """

    mask: Tensor
    depth: Tensor
    importance: Tensor
    rate_loss: Tensor

    def joined(self, found: Quantized) -> VariableQuantized:
        """Return what a quantizer found with the mask, with this allocation."""
        return VariableQuantized(
            **vars(found),
            depth=self.depth,
            importance=self.importance,
            rate_loss=self.rate_loss,
        )


def allocate(
    importance: Tensor,
    n_codebooks: int,
    settings: VariableSettings,
    scale: Tensor | float | None = None,
) -> Allocation:
    """Choose the levels of a training batch.

    Args:
        importance: [B, T] in (0, 1).
        n_codebooks: K.
        settings: which items keep levels by their importance, and how that is trained.
        scale: of these items: one number, or one per item of the batch [B]. None draws one each.
    """
    batch, device = len(importance), importance.device
    n_full, n_dropped = (int(batch * s) for s in (settings.full_share, settings.dropout_share))
    by_importance = importance[: batch - n_full - n_dropped]
    if scale is None:
        scale = _draw_scales(len(by_importance), settings, device)
    elif isinstance(scale, Tensor) and scale.ndim:
        scale = scale[: len(by_importance)]
    given = torch.full((n_dropped + n_full, 1), n_codebooks, device=device)
    given[:n_dropped] = torch.randint(1, n_codebooks + 1, (n_dropped, 1), device=device)
    depth = depth_of(by_importance, scale, n_codebooks)
    depth = torch.cat([depth, given.expand(-1, importance.shape[-1])])
    level = torch.arange(n_codebooks, device=device)[:, None]
    mask = (level < depth[:, None]).to(importance.dtype)
    reached = _reached(by_importance, scale, n_codebooks)
    smooth = surrogate(reached[:, None] - level, settings.surrogate, settings.alpha)
    through = smooth - smooth.detach()  # 0, with the gradient of the surrogate
    mask = mask + F.pad(through, (0, 0, 0, 0, 0, len(given)))
    return Allocation(mask, depth, importance, by_importance.mean())


def _draw_scales(n: int, settings: VariableSettings, device: torch.device) -> Tensor:
    """Draw scales [n]."""
    low, high = settings.scales
    draw = torch.rand(n, device=device)
    return low * (high / low) ** draw if settings.log_scales else low + (high - low) * draw


@dataclass
class VariableQuantized(Quantized):
    """The result of quantizing latents at a variable bitrate in training.

    Attributes:
        depth: int64 [B, T]. Codes past it are real, but are not part of the stream.
        importance: [B, T].
        rate_loss: scalar; see `Allocation`.
    """

    depth: Tensor
    importance: Tensor
    rate_loss: Tensor


@in_float32
def quantize_variable(
    levels: Sequence[Any],
    latents: Tensor,
    importance: Tensor,
    settings: VariableSettings,
    scale: Tensor | float | None = None,
) -> VariableQuantized:
    """Quantize latents of a training batch with the levels that their importance chooses.

    All levels run, and each quantizes what the level before it left, kept or not. `quantized` and
    the losses have the kept levels only. The quantizer's own dropout is not used.

    Args:
        levels: of the quantizer, see `quantize_levels`.
        latents: [B, D, T].
        importance: [B, T] in (0, 1).
        settings, scale: see `allocate`.
    """
    chosen = allocate(importance, len(levels), settings, scale)
    return chosen.joined(quantize_levels(levels, latents, chosen.mask))
