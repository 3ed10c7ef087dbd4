"""Variable bitrate: an importance network chooses how many levels each frame keeps.

VRVQ (Chae et al. 2024, "Variable Bitrate Residual Vector Quantization for Audio Coding"). With the
importance p of a frame, in (0, 1), a scale l and K levels, s = p * l * K, and the frame keeps the
levels k <= s: between one and K. The codes of a level do not depend on the number of levels, so an
utterance that was encoded once has every bitrate:

    codes, _ = quantizer.encode(latents)
    importance = allocator.importance(feature)      # feature of the encoder's last block
    depth = depth_of(importance, scale, n_codebooks)
    quantized = quantizer.decode(codes, depth)

In training, `quantize_variable` runs the quantizer and the allocator together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tokgen.codec.spec import Quantized
from tokgen.codec.stages import in_float32
from tokgen.nn.dense import linear
from tokgen.quantizers.residual import ResidualQuantizer

__all__ = [
    "NETWORKS",
    "SURROGATES",
    "WIDTHS",
    "Allocation",
    "ImportanceNetwork",
    "LevelAllocator",
    "VariableQuantized",
    "depth_of",
    "quantize_variable",
    "scale_for",
    "surrogate",
]

WIDTHS = (512, 128, 32, 8)  # channels between the convolutions
# Kernel sizes. The public network has one convolution more, which keeps the number of channels.
NETWORKS = {"paper": (5, 3, 3, 3, 1), "public": (3, 3, 3, 3, 3, 3)}


def _logcosh(x: Tensor, alpha: float) -> Tensor:
    upper, lower = (F.softplus(2 * alpha * (x + side), threshold=30) for side in (0.5, -0.5))
    return 0.5 + (upper - lower - alpha) / (2 * alpha)


SURROGATES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "logcosh": _logcosh,
    "square": lambda x, alpha: x.clamp(0, 1),
    "sigmoid": lambda x, alpha: torch.sigmoid(alpha * x),
}


def surrogate(x: Tensor, kind: str = "logcosh", alpha: float = 2.0) -> Tensor:
    """Return a smooth stand-in for the step 1[x >= 0], whose gradient trains the importance.

    "logcosh" is the paper's, 1/2 + ln(cosh(a (x + 1/2)) / cosh(a (x - 1/2))) / 2a, computed so that
    no `alpha` overflows. "square" is clip(x, 0, 1), for any `alpha`; "sigmoid" is sigmoid(a x).
    """
    return SURROGATES[kind](x, alpha)


class ImportanceNetwork(nn.Module):
    """Convolutions with weight norm, and Snake before each of them.

    Args:
        feature_dim: channels C of the feature.
        kind: "paper" (five convolutions) or "public" (six, as in the authors' code), of `NETWORKS`.
        widths: channels between the convolutions, the last of which has one. Fewer widths than
            `WIDTHS` leave convolutions out.
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


def depth_of(importance: Tensor, scale: Tensor | float, n_codebooks: int) -> Tensor:
    """Return how many levels each frame keeps.

    Args:
        importance: [B, T] in (0, 1).
        scale: above 0: one number, or one per item [B]. The depth grows with it.
        n_codebooks: K.
    Returns:
        int64 [B, T] in 1..K.
    """
    return (_reached(importance, scale, n_codebooks).floor().long() + 1).clamp(max=n_codebooks)


def _reached(importance: Tensor, scale: Tensor | float, n_codebooks: int) -> Tensor:
    """Return s [B, T]; level k is kept if k <= s."""
    if isinstance(scale, Tensor) and scale.ndim:
        scale = scale[:, None]
    return importance * scale * n_codebooks


def scale_for(importance: Tensor, mean_depth: float, n_codebooks: int) -> float:
    """Return the scale at which frames keep `mean_depth` levels on average.

    Args:
        importance: of one utterance, [T] or [1, T].
        mean_depth: levels per frame, 1..K. The result meets it within one level of one frame,
            unless frames are equally important.
        n_codebooks: K.
    Raises:
        ValueError: `mean_depth` is outside 1..K.
    """
    if not 1 <= mean_depth <= n_codebooks:
        raise ValueError(f"mean_depth = {mean_depth}: must be 1 to {n_codebooks}")
    levels = torch.arange(1, n_codebooks, device=importance.device)
    starts = levels / (importance.detach().double().flatten()[:, None] * n_codebooks)
    starts = starts.flatten().sort().values  # the scales at which one more level is kept
    wanted = round((mean_depth - 1) * importance.numel())
    if not len(starts):
        return 1.0
    below = float(starts[wanted - 1]) if wanted else float(starts[0]) / 2
    above = float(starts[wanted]) if wanted < len(starts) else 2 * float(starts[-1])
    return math.sqrt(below * above)


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


class LevelAllocator(nn.Module):
    """Chooses how many levels each frame keeps.

    In training, most items of a batch keep levels by their importance, each at a scale of its own;
    then come items that keep a random number of levels; the last ones keep all.

    Args:
        feature_dim: channels C of the encoder's feature.
        n_codebooks: levels K.
        network, widths: see `ImportanceNetwork`.
        surrogate: "logcosh" (the paper), "square" or "sigmoid"; see `surrogate`.
        alpha: sharpness of the surrogate, above 0.
        scales: the lowest and the highest scale in training.
        log_scales: scales are drawn uniformly in their logarithm.
        full_share: share of items that keep all levels.
        dropout_share: share of items that keep a random number of levels, 1..K.
        detach: the importance does not train the encoder.
    Raises:
        ValueError: a value is unknown or out of range.
    """

    def __init__(
        self,
        feature_dim: int,
        *,
        n_codebooks: int,
        network: str = "paper",
        widths: Sequence[int] = WIDTHS,
        surrogate: str = "logcosh",
        alpha: float = 2.0,
        scales: tuple[float, float] = (0.125, 6.0),
        log_scales: bool = False,
        full_share: float = 0.25,
        dropout_share: float = 0.0,
        detach: bool = False,
    ) -> None:
        super().__init__()
        if surrogate not in SURROGATES:
            raise ValueError(f"surrogate {surrogate!r}: known are {', '.join(SURROGATES)}")
        if not 0 < alpha < math.inf:
            raise ValueError(f"alpha = {alpha}: must be above 0 and finite")
        if not 0 < scales[0] <= scales[1] < math.inf:
            raise ValueError(f"scales = {scales}: must be above 0, the lowest first")
        if min(full_share, dropout_share) < 0 or full_share + dropout_share >= 1:
            raise ValueError(
                f"full_share = {full_share}, dropout_share = {dropout_share}: must be at least 0, "
                "and below 1 together"
            )
        self.importance = ImportanceNetwork(feature_dim, network, widths)
        self.n_codebooks, self.surrogate, self.alpha = n_codebooks, surrogate, alpha
        self.scales, self.log_scales = scales, log_scales
        self.full_share, self.dropout_share, self.detach = full_share, dropout_share, detach

    @in_float32
    def forward(self, feature: Tensor, scale: Tensor | float | None = None) -> Allocation:
        """Choose the levels of a batch.

        Args:
            feature: [B, C, T].
            scale: one number, or one per item [B]. None draws one per item in training; in eval
                mode it keeps all levels.
        """
        importance = self.importance(feature.detach() if self.detach else feature)
        batch, n = len(importance), self.n_codebooks
        n_full, n_dropped = (
            int(batch * share) if self.training else 0
            for share in (self.full_share, self.dropout_share)
        )
        if scale is None and not self.training:
            n_full = batch
        by_importance = importance[: batch - n_full - n_dropped]
        if scale is None:
            scale = self._draw(len(by_importance), importance.device)
        elif isinstance(scale, Tensor) and scale.ndim:
            scale = scale[: len(by_importance)]
        given = torch.full((n_dropped + n_full, 1), n, device=importance.device)
        given[:n_dropped] = torch.randint(1, n + 1, (n_dropped, 1), device=importance.device)
        depth = torch.cat(
            [depth_of(by_importance, scale, n), given.expand(-1, importance.shape[-1])]
        )
        level = torch.arange(n, device=importance.device)[:, None]
        mask = (level < depth[:, None]).to(importance.dtype)
        smooth = surrogate(
            _reached(by_importance, scale, n)[:, None] - level, self.surrogate, self.alpha
        )
        through = smooth - smooth.detach()  # 0, with the gradient of the surrogate
        mask = mask + F.pad(through, (0, 0, 0, 0, 0, len(given)))
        rated = by_importance if len(by_importance) else importance
        return Allocation(mask, depth, importance, rated.mean())

    def _draw(self, n: int, device: torch.device) -> Tensor:
        """Draw scales [n]."""
        low, high = self.scales
        draw = torch.rand(n, device=device)
        if self.log_scales:
            return low * (high / low) ** draw
        return low + (high - low) * draw


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


def quantize_variable(
    quantizer: ResidualQuantizer,
    allocator: LevelAllocator,
    latents: Tensor,
    feature: Tensor,
    scale: Tensor | float | None = None,
) -> VariableQuantized:
    """Quantize latents with the levels that an allocator chooses.

    All levels run, and each quantizes what the level before it left, kept or not. `quantized` and
    the losses have the kept levels only. The quantizer's own dropout is not used.

    Args:
        quantizer, allocator: of the same number of levels.
        latents: [B, D, T].
        feature: [B, C, T].
        scale: see `LevelAllocator.forward`.
    """
    chosen = cast(Allocation, allocator(feature, scale))
    found = quantizer(latents, chosen.mask)
    return VariableQuantized(
        **vars(found),
        depth=chosen.depth,
        importance=chosen.importance,
        rate_loss=chosen.rate_loss,
    )
