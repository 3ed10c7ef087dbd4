"""Layouts of codes for language models: `flatten`, `add_offsets` and `delay`, and their inverses.

    flatten(codes)                 # [T * K], frame by frame, coarse level first
    add_offsets(codes, 1024)       # [K, T], level k as k * 1024 ... k * 1024 + 1023
    delay(codes, fill=1024)        # [K, T + K - 1], level k is k steps late

Codes are integers [..., K, T]: any number of dimensions may stand before the levels. `flatten`
after `add_offsets` gives one sequence with one vocabulary, `delay` is the pattern of MusicGen
(Copet et al. 2023), which predicts all levels of a step at once. The inverses return equal codes.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["add_offsets", "delay", "flatten", "remove_offsets", "undelay", "unflatten"]


def flatten(codes: Tensor) -> Tensor:
    """Return codes [..., K, T] as one sequence [..., T * K]: all levels of a frame, then the next.

    Raises:
        ValueError: fewer than two dimensions, or not integers.
    """
    _check(codes, "codes", "[..., K, T]")
    return codes.mT.flatten(-2)


def unflatten(sequence: Tensor, n_codebooks: int) -> Tensor:
    """Return the codes [..., K, T] of a sequence that `flatten` made.

    Args:
        sequence: integers [..., T * K].
        n_codebooks: K.
    Raises:
        ValueError: n_codebooks below 1, a length that is no multiple of it, or not integers.
    """
    _check(sequence, "a sequence", "[..., T * K]", least=1)
    if n_codebooks < 1:
        raise ValueError(f"n_codebooks = {n_codebooks}: must be at least 1")
    if sequence.shape[-1] % n_codebooks:
        raise ValueError(
            f"a sequence of {sequence.shape[-1]} codes has no whole number of frames of "
            f"{n_codebooks} levels: the length must be a multiple of {n_codebooks}"
        )
    return sequence.unflatten(-1, (-1, n_codebooks)).mT


def add_offsets(codes: Tensor, codebook_size: int | Sequence[int]) -> Tensor:
    """Raise the codes of each level by the entries of the levels before it.

    Args:
        codes: integers [..., K, T], those of each level in 0 ... codebook_size - 1.
        codebook_size: entries per level, or one number for each level.
    Returns:
        int64 [..., K, T]; no two levels share a value.
    Raises:
        ValueError: a code is outside its level, or a wrong shape or number of levels.
    """
    _check(codes, "codes", "[..., K, T]")
    first, sizes = _ranges(codes, codebook_size)
    codes = codes.long()
    _check_range(codes, torch.zeros_like(first), sizes, "the codes as `encode` returns them")
    return codes + first


def remove_offsets(codes: Tensor, codebook_size: int | Sequence[int]) -> Tensor:
    """Undo `add_offsets`.

    Args:
        codes: integers [..., K, T] as `add_offsets` returns them.
        codebook_size: entries per level, or one number for each level.
    Returns:
        int64 [..., K, T].
    Raises:
        ValueError: a value lies outside the range of its level, as in a sequence that a model made
            and that is out of step; or a wrong shape or number of levels.
    """
    _check(codes, "codes", "[..., K, T]")
    first, sizes = _ranges(codes, codebook_size)
    codes = codes.long()
    _check_range(codes, first, first + sizes, "what `add_offsets` made, with its codebook_size")
    return codes - first


def delay(
    codes: Tensor,
    fill: int,
    *,
    lengths: Tensor | Sequence[int] | None = None,
    check: bool = True,
) -> Tensor:
    """Delay level k by k steps. Step s then has the code of frame s - k at level k.

    Args:
        codes: integers [..., K, T].
        fill: value of positions without a code, such as `codebook_size`; not a code itself.
        lengths: frames of each item, integers [...], for codes that are padded; later frames become
            `fill`. None means all T.
        check: look for wrong values of `fill` and lengths, for which the host waits for a GPU.
    Returns:
        [..., K, T + K - 1], of the type of the codes.
    Raises:
        ValueError: `fill` is one of the codes or does not fit their type; lengths of another shape
            or above T; fewer than two dimensions; or not integers.
    """
    _check(codes, "codes", "[..., K, T]")
    if not torch.iinfo(codes.dtype).min <= fill <= torch.iinfo(codes.dtype).max:
        raise ValueError(f"fill = {fill} does not fit {codes.dtype}: convert the codes to int64")
    n_levels, n_frames = codes.shape[-2:]
    live = torch.ones(codes.shape, dtype=torch.bool, device=codes.device)
    if lengths is not None:
        ends = torch.as_tensor(lengths, device=codes.device)
        if ends.shape != codes.shape[:-2]:
            raise ValueError(
                f"lengths of shape {tuple(ends.shape)} for codes {tuple(codes.shape)}: expected "
                f"{tuple(codes.shape[:-2])}, one for each item"
            )
        if check and ends.numel() and not (int(ends.min()) >= 0 and int(ends.max()) <= n_frames):
            raise ValueError(f"lengths = {ends.tolist()}: must be in 0..{n_frames}, the frames")
        live &= (torch.arange(n_frames, device=codes.device) < ends[..., None])[..., None, :]
    if check and ((codes == fill) & live).any():
        raise ValueError(f"fill = {fill} is one of the codes: use a value that no code has")
    shown = codes.masked_fill(~live, fill)
    rows = [
        F.pad(shown[..., k, :], (k, n_levels - 1 - k), value=fill)  # [..., T + K - 1]
        for k in range(n_levels)
    ]
    return torch.stack(rows, -2)


def undelay(steps: Tensor, fill: int | None = None, *, dim: int = -1) -> Tensor:
    """Undo `delay`.

    Args:
        steps: [..., K, T + K - 1], of any type.
        fill: the fill of `delay`. If it is given, positions without a code must have it, and others
            not, except those of frames after the last in all levels. None checks nothing.
        dim: dimension of the steps; that of the levels is before it. Logits [B, K, T + K - 1, V]
            have it at 2.
    Returns:
        [..., K, T]; with `fill`, frames that `lengths` of `delay` cut off are still `fill`.
    Raises:
        ValueError: fewer steps than levels, or `fill` where a code is expected, or the reverse.
    """
    dim = dim % steps.ndim if steps.ndim else 0
    if dim < 1:
        raise ValueError(f"steps of shape {tuple(steps.shape)}: expected [..., K, T + K - 1]")
    n_levels, n_steps = steps.shape[dim - 1], steps.shape[dim]
    n_frames = n_steps - n_levels + 1
    if n_frames < 1 or n_levels < 1:
        raise ValueError(
            f"{n_steps} steps of {n_levels} levels hold no frame: T frames make T + "
            f"{n_levels - 1} steps"
        )
    rows = [steps.select(dim - 1, k).narrow(dim - 1, k, n_frames) for k in range(n_levels)]
    codes = torch.stack(rows, dim - 1)
    if fill is not None:
        _check_steps(steps, codes, fill, dim)
    return codes


def _check_steps(steps: Tensor, codes: Tensor, fill: int, dim: int) -> None:
    """Raise ValueError if the positions without a code are not those that `delay` leaves."""
    empty, filled = codes == fill, (codes == fill).all(dim - 1)
    ends = filled.long().cummax(dim - 1).values.bool()
    if (filled != ends).any() or (empty != filled.unsqueeze(dim - 1)).any():
        raise ValueError(f"{fill}, the fill, stands where a code is expected: not made by `delay`")
    outside = (steps != fill).sum() - (codes != fill).sum()
    if outside:
        raise ValueError(
            f"{int(outside)} codes stand where `delay` puts {fill}, the fill: level k has its "
            "first code in step k and its last in step T + k - 1"
        )


def _check(codes: Tensor, what: str, shape: str, least: int = 2) -> None:
    if codes.ndim < least:
        raise ValueError(f"{what} of shape {tuple(codes.shape)}: expected {shape}")
    if codes.dtype.is_floating_point or codes.dtype.is_complex or codes.dtype == torch.bool:
        raise ValueError(f"{what} of type {codes.dtype}: expected integers")


def _ranges(codes: Tensor, codebook_size: int | Sequence[int]) -> tuple[Tensor, Tensor]:
    """Return the first value [K, 1] and the entries [K, 1] of each level."""
    n_levels = codes.shape[-2]
    sizes = [codebook_size] * n_levels if isinstance(codebook_size, int) else [*codebook_size]
    if len(sizes) != n_levels:
        raise ValueError(
            f"{len(sizes)} codebook sizes for {n_levels} levels: give one for each, or one for all"
        )
    if any(size < 1 for size in sizes):
        raise ValueError(f"codebook_size = {codebook_size}: must be at least 1")
    first = [0, *accumulate(sizes)][:n_levels]
    made = torch.tensor([first, sizes], dtype=torch.int64, device=codes.device)
    return made[0, :, None], made[1, :, None]


def _check_range(codes: Tensor, low: Tensor, high: Tensor, expected: str) -> None:
    wrong = (codes < low) | (codes >= high)
    if wrong.any():
        place = wrong.nonzero()[0].tolist()
        level = place[-2]
        raise ValueError(
            f"value {int(codes[tuple(place)])} at level {level}, frame {place[-1]}: must be in "
            f"{int(low[level])}..{int(high[level]) - 1}; pass {expected}"
        )
