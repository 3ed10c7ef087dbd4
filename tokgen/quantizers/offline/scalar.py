"""Finite scalar quantization (Mentzer et al. 2023): a code is a grid point of a few numbers.

A linear map turns the frame into numbers, each number is rounded to one of a few values, and a
linear map turns the values into a frame. vector-quantize-pytorch rounds in training. A fitted
quantizer does not need it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tokgen.extras import require
from tokgen.nn.dense import linear
from tokgen.quantizers.beam import Level
from tokgen.quantizers.offline.additive import AdditiveQuantizer
from tokgen.runs.progress import progress_bar

__all__ = ["FiniteScalar", "ResidualFiniteScalar", "one_torch_thread", "values_of"]

_MOST = 1 << 16  # entries, the limit of token datasets
_BATCH = 1024  # frames per training step
_GAIN = 0.7  # standard deviations of the numbers at the start
_LEARNING_RATE = 3e-3


class FiniteScalar(AdditiveQuantizer):
    """K groups of numbers, all from one linear map of the frame.

    A frame is the sum of one row of each codebook: the row is the group's part of the linear map
    of its values. So beam search, which FSQ does not have, can choose better codes than rounding.

    Args:
        dim, n_codebooks: D and K.
        codebook_size: product of `values`; None means that, or 1024 without `values`.
        values: how many values each number of a group has, at least 3; None means `values_of` the
            codebook size.
        steps: of training, of 1024 frames each.
    """

    model_type = "finite_scalar"
    nested: ClassVar[bool] = False
    in_maps: Tensor  # [K, m, D]
    in_biases: Tensor  # [K, m]
    grid: Tensor  # [R, m]
    thresholds: Tensor  # [m, most values - 1]
    basis: Tensor  # [m]

    def __init__(
        self,
        *,
        dim: int,
        n_codebooks: int = 8,
        codebook_size: int | None = None,
        values: list[int] | None = None,
        steps: int = 2000,
    ) -> None:
        if values is None:
            values = values_of(1024 if codebook_size is None else codebook_size)
        size = math.prod(values)
        if not values or min(values) < 3 or size > _MOST:
            raise ValueError(
                f"values = {values}: each must be at least 3, and their product at most {_MOST}"
            )
        if codebook_size not in (None, size):
            raise ValueError(
                f"codebook_size = {codebook_size}, but values = {values} make {size}: give one"
            )
        if steps < 0:
            raise ValueError(f"steps = {steps}: must be at least 0")
        super().__init__(dim=dim, n_codebooks=n_codebooks, codebook_size=size)
        self.config |= {"values": values, "steps": steps}
        self.values, self.steps = values, steps
        self.register_buffer("in_maps", torch.zeros(n_codebooks, len(values), dim))
        self.register_buffer("in_biases", torch.zeros(n_codebooks, len(values)))
        for name, table in zip(("grid", "thresholds", "basis"), _tables(values), strict=True):
            self.register_buffer(name, table, persistent=False)

    def _fit(self, frames: Tensor, seed: int, progress: bool) -> None:
        groups = 1 if self.nested else self.n_codebooks
        with one_torch_thread():
            stages = _Stages(frames.cpu(), self.values, self.n_codebooks // groups, groups, seed)
            stages.train_maps(self.steps, seed, progress)
            maps = stages.maps()
        for mine, found in zip((self.in_maps, self.in_biases), maps[:2], strict=True):
            mine.copy_(found)
        out, bias = maps[2:]
        self.codebooks.copy_(self.grid.cpu() @ out.mT + bias[:, None])

    def _greedy(self, frames: Tensor, levels: Sequence[Level]) -> Tensor:
        numbers = linear(frames, self.in_maps.flatten(0, 1), self.in_biases.flatten())
        return self._round(numbers.unflatten(1, (-1, len(self.values))))

    def _round(self, numbers: Tensor) -> Tensor:
        """Return the codes [...] of numbers [..., m]."""
        digits = (numbers[..., None] > self.thresholds).sum(-1)
        return (digits * self.basis).sum(-1)


class ResidualFiniteScalar(FiniteScalar):
    """K levels; each maps what the levels before it leave, with linear maps of its own.

    Args:
        dim, n_codebooks, codebook_size, values, steps: see `FiniteScalar`; a level has one group.
    """

    model_type = "residual_finite_scalar"
    nested: ClassVar[bool] = True

    def _greedy(self, frames: Tensor, levels: Sequence[Level]) -> Tensor:
        residual, codes = frames, []
        maps = zip(levels, self.in_maps, self.in_biases, strict=False)
        for level, weight, bias in maps:
            codes.append(self._round(linear(residual, weight, bias)))
            residual = residual - level.outputs[codes[-1]]
        return torch.stack(codes, 1)


def values_of(codebook_size: int) -> list[int]:
    """Return numbers of values, 3 to 16 each, whose product is the codebook size.

    Of all such lists, it is the longest one, and of these the one with the smallest maximum:
    [4, 4, 4, 4] for 256, [8, 5, 5, 5] for 1000.

    Raises:
        ValueError: there is none.
    """
    found = list(_factors(codebook_size, 16))
    if codebook_size < 3 or not found:
        raise ValueError(
            f"codebook_size = {codebook_size} is not a product of numbers from 3 to 16: give "
            "values, or use 256, 1000 or 1024"
        )
    return min(found, key=lambda values: (-len(values), values))


def _factors(size: int, most: int) -> Iterator[list[int]]:
    """Yield the lists of factors 3..most, largest first, whose product is `size`."""
    if size == 1:
        yield []
    for factor in range(3, min(most, size) + 1):
        if size % factor == 0:
            yield from ([factor, *rest] for rest in _factors(size // factor, factor))


def _tables(values: list[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Return the values of each code [R, m], the thresholds of the numbers, and the basis [m].

    A number's digit is how many thresholds lie below it: FSQ's tanh and rounding, without a tanh
    that may round in another way for other numbers of frames.
    """
    basis = [math.prod(values[:i]) for i in range(len(values))]
    digits = torch.arange(math.prod(values))[:, None] // torch.tensor(basis) % torch.tensor(values)
    half = torch.tensor(values) // 2
    thresholds = [[math.inf] * (max(values) - 1) for _ in values]
    for row, n in zip(thresholds, values, strict=True):
        scale, offset, shift = _bound(n)
        for j in range(1, n):
            row[j - 1] = math.atanh((j - n // 2 - 0.5 + offset) / scale) - shift
    return (digits - half) / half, torch.tensor(thresholds), torch.tensor(basis)


def _bound(n: int) -> tuple[float, float, float]:
    """Return scale, offset and shift: FSQ rounds tanh(x + shift) * scale - offset to n values."""
    scale, offset = (n - 1) * 1.001 / 2, 0.5 if n % 2 == 0 else 0.0
    return scale, offset, math.atanh(offset / scale)


class _Stages(nn.Module):
    """The maps in training: stages that code what is left, each with some groups of numbers."""

    def __init__(
        self, frames: Tensor, values: list[int], n_stages: int, groups: int, seed: int
    ) -> None:
        super().__init__()
        fsq = require("vector_quantize_pytorch", "train").FSQ
        self.fsq = fsq(list(values), num_codebooks=groups, return_indices=False)
        self.mean, self.std = frames.mean(0), frames.std().clamp_min(1e-12)
        self.frames = (frames - self.mean) / self.std
        self.shifts = torch.tensor([_bound(n)[2] for n in values] * groups)
        self.maps_in: Any = nn.ParameterList()  # [width, 1 + D], the bias first
        self.maps_out: Any = nn.ParameterList()  # [D, 1 + width]
        generator = torch.Generator().manual_seed(seed)
        left = self.frames
        for _ in range(n_stages):
            self._add_stage(left, generator)
            left = left - self._decoded(left, -1)

    def _add_stage(self, left: Tensor, generator: torch.Generator) -> None:
        """Add a stage: principal components in, least squares out."""
        width, dim = len(self.shifts), left.shape[1]
        axes = torch.linalg.eigh(left.double().T.cov())[1].flip(1).T  # [D, D], largest first
        if width > dim:
            noise = torch.randn(width, dim, generator=generator, dtype=torch.float64)
            axes = torch.linalg.qr(noise)[0] @ axes
        axes = axes[:width].float()
        spread = (left @ axes.T).std(0)
        axes = axes * (_GAIN / spread.clamp_min(1e-6 * float(spread.max()) + 1e-12))[:, None]
        bias = -self.shifts - axes @ left.mean(0)
        self.maps_in.append(nn.Parameter(torch.cat([bias[:, None], axes], 1)))
        inner = self._values(left, -1).double()
        gram = inner.T @ inner
        gram.diagonal().add_(1e-6 * len(left))
        out = torch.linalg.solve(gram, inner.T @ left.double())
        self.maps_out.append(nn.Parameter(out.T.float().contiguous()))

    @torch.no_grad()
    def _decoded(self, frames: Tensor, stage: int) -> Tensor:
        return self._values(frames, stage) @ self.maps_out[stage].T

    def _values(self, frames: Tensor, stage: int) -> Tensor:
        """Return rounded numbers [n, 1 + width]; the first is 1."""
        bias, weight = self.maps_in[stage].split([1, frames.shape[1]], 1)
        values = self.fsq((frames @ weight.T + bias.T)[None])[0][0]
        return torch.cat([torch.ones_like(values[:, :1]), values], 1)

    def forward(self, frames: Tensor) -> Tensor:
        """Return the mean squared error, summed over stages."""
        left, loss = frames, frames.new_zeros(())
        for stage, out in enumerate(self.maps_out):
            left = left - self._values(left.detach(), stage) @ out.T
            loss = loss + left.square().mean()
        return loss

    def train_maps(self, steps: int, seed: int, progress: bool) -> None:
        """Lower the mean squared error by Adam, with a learning rate that falls to 0."""
        generator = torch.Generator().manual_seed(seed)
        optimizer = torch.optim.Adam(self.parameters(), lr=_LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(1, steps))
        bar = progress_bar("FSQ", total=steps, unit="step", show=progress)
        with bar, torch.enable_grad():
            for _ in range(steps):
                batch = torch.randint(len(self.frames), (_BATCH,), generator=generator)
                optimizer.zero_grad()
                self(self.frames[batch]).backward()
                optimizer.step()
                schedule.step()
                bar.update()

    @torch.no_grad()
    def maps(self) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Return maps in [K, m, D], biases [K, m], maps out [K, D, m] and biases [K, D]."""
        groups, dim = self.fsq.num_codebooks, self.frames.shape[1]
        maps_in, maps_out = torch.stack(list(self.maps_in)), torch.stack(list(self.maps_out))
        into, bias = maps_in[..., 1:] / self.std, maps_in[..., 0].clone()
        bias[0] -= into[0] @ self.mean  # the other stages get what is left, without the mean
        out, shift = maps_out[..., 1:] * self.std, maps_out[..., 0] * self.std
        shift[0] += self.mean
        shifts = torch.zeros(len(shift), groups, dim)
        shifts[:, 0] = shift
        into = into.unflatten(1, (groups, -1)).flatten(0, 1)
        out = out.unflatten(2, (groups, -1)).transpose(1, 2).flatten(0, 1)
        return into, bias.unflatten(1, (groups, -1)).flatten(0, 1), out, shifts.flatten(0, 1)


@contextmanager
def one_torch_thread() -> Iterator[None]:
    """Make torch use one thread inside the `with` block: more threads sum in another order."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
