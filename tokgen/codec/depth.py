"""Variable depth: how many levels each frame of an utterance keeps, and what that costs in bits.

A codec with an importance network gives each frame an importance p in (0, 1). At the level l
(VRVQ's scale), a frame of a codec with K levels keeps those with k <= p * l * K: between one and K.
The codes of a level do not depend on the depth, so an utterance that was encoded once has every
bitrate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokgen.codec.spec import DEPTH, IMPORTANCE, CodecSpec, Encoded, Side
from tokgen.runs.device import float64

__all__ = [
    "Allocating",
    "DepthCounts",
    "OutOfReach",
    "Rate",
    "allocate",
    "append_depth",
    "append_row",
    "check_depth",
    "check_reach",
    "depth_bits",
    "depth_of",
    "mean_kbps",
    "refuse_depth",
    "scale_for",
    "scale_for_bitrate",
    "split_row",
    "stream_bits",
]


class OutOfReach(ValueError):
    """A bitrate that no level reaches on an utterance."""


@dataclass(frozen=True)
class Rate:
    """How a codec of variable depth chooses the levels of each frame.

    Attributes:
        level: above 0; the depth grows with it.
        bitrate: kbps on average over each utterance, with the bits of the depth. One of the two.
        n_codebooks: most levels; None means all.
    """

    level: float | None = None
    bitrate: float | None = None
    n_codebooks: int | None = None

    def __post_init__(self) -> None:
        given = [v for v in (self.level, self.bitrate) if v is not None]
        if len(given) != 1:
            raise ValueError(f"level = {self.level} and bitrate = {self.bitrate}: give one of them")
        if not 0 < given[0] < math.inf:
            name = "level" if self.bitrate is None else "bitrate"
            raise ValueError(f"{name} = {given[0]}: must be above 0 and finite")

    def depth(self, importance: Tensor, spec: CodecSpec) -> Tensor:
        """Return the depth int64 [T] of an utterance's importance [T].

        Raises:
            OutOfReach: a bitrate that no level reaches.
        """
        most = self.n_codebooks or spec.n_codebooks
        scale = self.level
        if scale is None:
            assert self.bitrate is not None
            scale = scale_for_bitrate(importance, self.bitrate, spec, most)
        return depth_of(importance[None], scale, spec.n_codebooks)[0].clamp(max=most)


def check_reach(rate: Rate | None, spec: CodecSpec, n_codebooks: int) -> None:
    """Raise ValueError if a bitrate is out of reach for all audio.

    Args:
        n_codebooks: most levels of a frame.
    """
    if rate is None or rate.bitrate is None:
        return
    low = spec.frame_rate * math.log2(spec.codebook_size) / 1000
    high = low * n_codebooks
    if not low <= rate.bitrate <= high * (1 + 1e-9):
        raise ValueError(
            f"bitrate = {rate.bitrate:g} kbps: {spec.name} reaches {low:.3g} to {high:.3g} kbps "
            f"with n_codebooks = {n_codebooks}; choose one of these, or give a level"
        )


def depth_of(importance: Tensor, scale: Tensor | float, n_codebooks: int) -> Tensor:
    """Return how many levels each frame keeps.

    Args:
        importance: [B, T] in (0, 1).
        scale: above 0: one number, or one per item [B]. The depth grows with it.
        n_codebooks: K.
    Returns:
        int64 [B, T] in 1..K.
    """
    if isinstance(scale, Tensor) and scale.ndim:
        scale = scale[:, None]
    reached = importance * scale * n_codebooks
    return (reached.floor().clamp(max=n_codebooks - 1) + 1).long()


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
    starts = _starts(importance, n_codebooks, n_codebooks)
    return _scale_after(starts, round((mean_depth - 1) * importance.numel()))


def scale_for_bitrate(
    importance: Tensor, bitrate: float, spec: CodecSpec, n_codebooks: int
) -> float:
    """Return the largest scale whose codes and depth take at most `bitrate` kbps on average.

    Args:
        importance: [T] of one utterance.
        bitrate: kbps over the utterance.
        n_codebooks: most levels of a frame.
    Raises:
        OutOfReach: not even one level for each frame takes so little, or all levels take less.
    """
    importance = importance.flatten()
    starts = _starts(importance, spec.n_codebooks, n_codebooks)

    def kbps(n: int) -> float:
        """Return the rate when `n` levels are kept besides the first of each frame."""
        scale = _scale_after(starts, n)
        depth = depth_of(importance[None], scale, spec.n_codebooks)[0].clamp(max=n_codebooks)
        return mean_kbps(depth, spec)

    low, high = kbps(0), kbps(len(starts))
    if not low <= bitrate <= high * (1 + 1e-9):
        most = "" if n_codebooks == spec.n_codebooks else f" with n_codebooks = {n_codebooks}"
        raise OutOfReach(
            f"bitrate = {bitrate:g} kbps: {spec.name} reaches {math.ceil(1000 * low) / 1000:g} to "
            f"{math.floor(1000 * high + 1e-6) / 1000:g} kbps on this audio{most}; choose one of "
            "these, or give a level"
        )
    fits, over = 0, len(starts) + 1  # a bisection; the rate hardly ever falls with more levels
    while over - fits > 1:
        middle = (fits + over) // 2
        fits, over = (middle, over) if kbps(middle) <= bitrate else (fits, middle)
    return _scale_after(starts, fits)


def _starts(importance: Tensor, n_codebooks: int, most: int) -> Tensor:
    """Return the sorted scales at which one more level of a frame is kept."""
    frames = float64(importance.detach()).flatten()[:, None]
    starts = torch.arange(1, most, device=frames.device) / (frames * n_codebooks)
    return starts.flatten().sort().values


def _scale_after(starts: Tensor, n: int) -> float:
    """Return a scale between start n - 1 and start n."""
    if not len(starts):
        return 1.0
    below = float(starts[n - 1]) if n else float(starts[0]) / 2
    above = float(starts[n]) if n < len(starts) else 2 * float(starts[-1])
    return math.sqrt(below * above)


class DepthCounts:
    """The probabilities of the next frame's depth, as integer counts that adapt to a sequence.

    They depend on the depth of the frame before. `.tgc` files code the depth with them.

    Args:
        n_codebooks: K, above 1.
    """

    STEP = 4  # what one frame adds to its count

    def __init__(self, n_codebooks: int) -> None:
        self.counts = _first_counts(n_codebooks)
        self._context = n_codebooks  # the row of the first frame

    def row(self) -> NDArray[np.int64]:
        """Return the counts [K] of the depths 1..K of the next frame."""
        return self.counts[self._context]

    def update(self, depth: int) -> None:
        """Add the depth of the next frame."""
        self.counts[self._context, depth - 1] += self.STEP
        self._context = depth - 1


def _first_counts(n_codebooks: int) -> NDArray[np.int64]:
    """Return the counts [K + 1, K] before any frame: near depths are likely."""
    level = np.arange(n_codebooks)
    near = np.maximum(8 >> np.minimum(np.abs(level[:, None] - level), 4), 1)
    return np.concatenate([near, np.ones((1, n_codebooks), np.int64)]).astype(np.int64)


def depth_bits(depth: Tensor, n_codebooks: int) -> float:
    """Return the bits that the depth of an utterance takes, coded with `DepthCounts`.

    Args:
        depth: integers [T] in 1..K.
        n_codebooks: K. With one level, the depth takes no bits.
    """
    if n_codebooks == 1 or not depth.numel():
        return 0.0
    now = depth.detach().cpu().numpy().astype(np.int64) - 1
    before = np.concatenate([[n_codebooks], now[:-1]])
    first = _first_counts(n_codebooks)
    seen = DepthCounts.STEP * _earlier(before * n_codebooks + now)
    total = DepthCounts.STEP * _earlier(before)
    return float(np.log2((first.sum(1)[before] + total) / (first[before, now] + seen)).sum())


def _earlier(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return for each key how many equal ones come before it."""
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    lengths = np.diff(np.concatenate([begins, [len(keys)]]))
    found = np.empty(len(keys), np.int64)
    found[order] = np.arange(len(keys)) - np.repeat(begins, lengths)
    return found


def stream_bits(n_frames: int, n_codebooks: int, spec: CodecSpec, depth: Tensor | None) -> float:
    """Return the bits of an utterance's codes, without entropy coding, and of its depth.

    Args:
        n_frames: T.
        n_codebooks: levels of the codes.
        depth: [T] of a variable depth; None means that all frames have all levels.
    """
    per_code = math.log2(spec.codebook_size)
    if depth is None:
        if spec.level_sizes:
            return n_frames * sum(map(math.log2, spec.level_sizes[:n_codebooks]))
        return n_frames * n_codebooks * per_code
    return float(depth.sum()) * per_code + depth_bits(depth, spec.n_codebooks)


def mean_kbps(depth: Tensor, spec: CodecSpec) -> float:
    """Return the kbps of codes of this depth [T], with the bits of the depth."""
    bits = stream_bits(len(depth), spec.n_codebooks, spec, depth)
    return bits * spec.frame_rate / len(depth) / 1000


def append_row(codes: Tensor, importance: Tensor) -> Tensor:
    """Join codes [B, K, T] and importance [B, T] to one int64 [B, K + 1, T], for a chain of stages.

    The last row has the bits of the float32 values.
    """
    return torch.cat([codes, importance.float().view(torch.int32).long()[:, None]], 1)


def append_depth(encoded: Encoded) -> Tensor:
    """Join codes [B, k, T] and their depth to one int64 [B, k + 1, T]; all levels without one."""
    codes, depth = encoded.codes, encoded.depth
    if depth is None:
        depth = torch.full_like(codes[:, 0], codes.shape[1])
    return torch.cat([codes, depth[:, None]], dim=1)


def split_row(joined: Tensor) -> Encoded:
    """Split what `append_row` joined, into codes and the side information `importance`."""
    importance = joined[:, -1].int().view(torch.float32)
    return Encoded(joined[:, :-1], {IMPORTANCE: importance})


def allocate(encoded: Encoded, rate: Rate, spec: CodecSpec, frames: list[int]) -> Encoded:
    """Choose the depth of each item by its importance.

    Args:
        encoded: codes [B, K, T] of all levels, and the side information `importance` [B, T].
        frames: frames of each item; those past them have no level.
    Returns:
        the codes, 0 past the depth, and the side information `depth`.
    Raises:
        ValueError: no importance, or as `Rate.depth`.
    """
    if IMPORTANCE not in encoded.side:
        raise ValueError(
            f"side information {sorted(encoded.side)}: no {IMPORTANCE!r} to choose levels by; pass "
            "the result of `encode_with_importance`"
        )
    importance = encoded.side[IMPORTANCE]
    depth = torch.zeros_like(importance)
    for row, values, n in zip(depth, importance, frames, strict=True):
        row[:n] = rate.depth(values[:n], spec)
    kept = encoded.codes * _mask(depth, encoded.codes.shape[1])
    rest = {name: v for name, v in encoded.side.items() if name != IMPORTANCE}
    return Encoded(kept, {**rest, DEPTH: depth})


def _mask(depth: Tensor, n_codebooks: int) -> Tensor:
    """Return a bool mask [B, K, T] of the levels that are kept."""
    return torch.arange(n_codebooks, device=depth.device)[:, None] < depth[:, None]


class Allocating:
    """The stage that chooses the depth: codes and importance of `append_row` in, codes out.

    A level is applied at once. A bitrate depends on the whole utterance, so the codes come at its
    end.

    Attributes:
        depths: the side information `depth` of the codes that came out, emptied by the reader.
    """

    def __init__(self, rate: Rate, spec: CodecSpec) -> None:
        self.rate, self.spec = rate, spec
        self.depths: list[Tensor] = []
        self._held: list[Tensor] = []

    def push(self, x: Tensor) -> Iterator[Tensor]:
        if self.rate.level is None:
            self._held.append(x)
        else:
            yield self._allocate(x)

    def finish(self) -> Iterator[Tensor]:
        if self._held:
            yield self._allocate(torch.cat(self._held, dim=-1))
            self._held = []

    def ready(self, n: int) -> int:
        return 0 if self.rate.level is None else n

    def _allocate(self, x: Tensor) -> Tensor:
        found = allocate(split_row(x), self.rate, self.spec, [x.shape[-1]] * len(x))
        self.depths.append(found.side[DEPTH])
        return found.codes


def refuse_depth(side: Side | None) -> None:
    """Raise ValueError if side information of codes for stable decoding has a depth."""
    if side is not None and DEPTH in side:
        raise ValueError(
            "stable decoding of codes of variable depth is not supported: encode with "
            "n_codebooks, or decode without stable"
        )


def check_depth(side: Side, codes: Tensor, spec: CodecSpec) -> Tensor:
    """Return the depth int64 [B, T] in the side information of codes [B, k, T].

    Raises:
        ValueError: another shape, or not whole numbers of 0..K; 0 is for padding.
    """
    values, (n_items, _, n_frames) = side[DEPTH], codes.shape
    if values.shape != (n_items, n_frames):
        raise ValueError(
            f"{DEPTH} of shape {tuple(values.shape)}: {spec.name} needs one per frame, "
            f"{(n_items, n_frames)}, for codes of shape {tuple(codes.shape)}"
        )
    depth = values.long()
    low, high = int(depth.min()), int(depth.max())
    if not (0 <= low <= high <= spec.n_codebooks and bool((depth == values).all())):
        raise ValueError(
            f"{DEPTH} spans {float(values.min()):g}..{float(values.max()):g}: {spec.name} needs "
            f"whole numbers of 1..{spec.n_codebooks}; pass the `side` of `encode_with_side`"
        )
    return depth
