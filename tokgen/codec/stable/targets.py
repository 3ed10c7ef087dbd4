"""How far the codes of a segment are from the wanted ones."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["CodeTargets"]

_LEAST = -30.0  # of products in a cross entropy; exp(-30) does not count beside 1


class CodeTargets:
    """Codes that a residual quantizer shall choose.

    The residual of each level is taken from the *wanted* codes of the levels before it, so each
    level has its own condition, and all hold when the quantizer chooses these codes.

    Scores are negative squared distances up to a constant, between unit vectors for a lookup by
    angle. Their unit is the mean squared distance of a row from its nearest neighbour, so settings
    mean the same in every codec.

    Args:
        levels: `tokgen.quantizers.beam.Level` of each level; those past the codes' do not count.
        codes: int64 [B, k, T].
    """

    def __init__(self, levels: Sequence[Any], codes: Tensor) -> None:
        levels = levels[: codes.shape[1]]
        self.codes, self.by_angle, first = codes, levels[0].by_angle, levels[0]
        rows = torch.stack([level.rows for level in levels]).float()
        if self.by_angle:
            rows = F.normalize(rows, dim=-1)
        unit = _spacing(rows)[:, None]  # [k, 1]
        half = rows.square().sum(-1, keepdim=True) / 2
        self.rows = torch.cat([rows, -half], -1).detach() / unit[..., None]  # [k, R, d + 1]
        self.weight = None if first.weight is None else torch.stack([x.weight for x in levels])
        before = torch.zeros(len(codes), codes.shape[2], first.outputs.shape[1]).to(rows)
        moved = []
        for k, level in enumerate(levels):
            if self.weight is None:
                moved.append(-before)
            else:
                moved.append(level.bias - before @ level.weight.mT)
            before = before + level.outputs[codes[:, k]]
        self.moved = torch.stack(moved, 1)  # [B, k, T, d], added to the projection of the latents

    def cut(self, start: int, stop: int) -> CodeTargets:
        """Return the targets of some frames."""
        part = object.__new__(CodeTargets)
        part.__dict__.update(self.__dict__)
        part.codes = self.codes[..., start:stop]
        part.moved = self.moved[:, :, start:stop]
        return part

    def compare(self, latents: Tensor, margin: float, temperature: float) -> tuple[Tensor, Tensor]:
        """Return the loss and the margin of every code, [B, k, T] each.

        The margin is the score of the wanted row minus that of the best other one. The loss is the
        cross entropy of the wanted row, minus its value when one other row lies at `margin` and all
        others far away. It is never below 0. Only the loss has a gradient, with respect to the
        latents.

        Args:
            latents: [B, D, T].
        """
        frames = latents.float().mT[:, None]  # [B, 1, T, D]
        projected = (frames if self.weight is None else frames @ self.weight.mT) + self.moved
        if self.by_angle:
            projected = F.normalize(projected, dim=-1)
        # a product with the negative half squares of the rows' lengths adds them
        points = F.pad(projected / temperature, (0, 1), value=1 / temperature)
        n_items, k, n_frames, d = points.shape
        points = points.transpose(0, 1).reshape(k, -1, d)
        codes = self.codes.transpose(0, 1).reshape(k, -1)
        entropy, leads = _CrossEntropy.apply(points, self.rows, codes)
        enough = math.log1p(math.exp(-margin / temperature))
        shape = k, n_items, n_frames
        loss = F.relu(entropy - enough).view(shape).transpose(0, 1)
        return loss, leads.view(shape).transpose(0, 1) * temperature


class _CrossEntropy(torch.autograd.Function):
    """Cross entropy of products with rows, in one table that the gradient needs too.

    points [k, N, d], rows [k, R, d], the wanted rows [k, N] -> the cross entropy, and the product
    with the wanted row minus the highest other one, [k, N] each.
    """

    @staticmethod
    def forward(ctx: Any, points: Tensor, rows: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        table = points @ rows.mT
        index = codes[..., None]
        wanted = table.gather(-1, index)
        table.scatter_(-1, index, -torch.inf)
        lead = wanted - table.amax(-1, keepdim=True)
        most = F.relu(-lead)  # of all rows, less the wanted one
        # exp is slow below the range of normal floats
        table.sub_(wanted + most).clamp_(min=_LEAST).exp_()
        own = (-most).exp()
        total = table.sum(-1, keepdim=True) + own
        ctx.save_for_backward(table, rows, index, own, total)
        ctx.mark_non_differentiable(lead := lead[..., 0])
        return (most + total.log())[..., 0], lead

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, _: Tensor) -> tuple[Tensor, None, None]:
        table, rows, index, own, total = ctx.saved_tensors
        chosen = rows.gather(1, index.expand(-1, -1, rows.shape[-1]))
        return (table @ rows - (total - own) * chosen) * (grad[..., None] / total), None, None


def _spacing(rows: Tensor) -> Tensor:
    """Return half the mean squared distance of rows [k, R, d] from their nearest neighbour, [k]."""
    found = []
    for level in rows:
        distance = torch.cdist(level, level).square()
        distance.fill_diagonal_(torch.inf)
        found.append(distance.amin(-1).mean() / 2)
    return torch.stack(found).clamp(min=1e-12)
