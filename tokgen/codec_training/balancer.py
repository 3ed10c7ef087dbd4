"""EnCodec's balancer of gradients (Défossez et al. 2022, section 3.4).

Every loss gets the share of the gradient that its weight has in the sum of the weights, however
large the gradient of the loss is. So weights keep their meaning when losses or data change.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["Balancer"]


class Balancer:
    """Scales the gradients of losses at the decoded waveform to shares set by weights.

    The gradient of loss i is g_i, its norm n_i, and N_i the moving average of the norm, the current
    step included and corrected for its start at zero. The balanced gradient is the sum of
    total * w_i / sum(w) * g_i / N_i, over the losses that are given.

    Losses that do not act through the waveform, such as the commitment loss, stay outside.

    Args:
        weights: weight of each loss. Losses without a weight are left out.
        total: norm of the balanced gradient, if all gradients point the same way.
        decay: of the averages of norms, per step. 1 gives the mean of all steps.
        per_item: the norm is the mean over items of the batch; False takes that of the whole batch.
        rescale: False gives the plain weighted sum of gradients.
        mean: averages a tensor over processes, so that all processes scale alike.
    Attributes:
        shares: each loss's share of the last gradient, as a share of the sum of the norms.
        weight_shares: the share that its weight asks for.
    """

    def __init__(
        self,
        weights: Mapping[str, float],
        *,
        total: float = 1.0,
        decay: float = 0.999,
        per_item: bool = True,
        rescale: bool = True,
        mean: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        if not 0 <= decay <= 1:
            raise ValueError(f"decay = {decay}: must be between 0 and 1")
        self.weights = {name: w for name, w in weights.items() if w}
        self.total, self.decay = total, decay
        self.per_item, self.rescale, self._mean = per_item, rescale, mean
        self._sums: dict[str, float] = {}  # decayed sum of norms
        self._counts: dict[str, float] = {}  # decayed number of norms
        self.shares: dict[str, float] = {}
        self.weight_shares: dict[str, float] = {}

    def loss(self, losses: Mapping[str, Tensor], waveform: Tensor) -> Tensor:
        """Return a scalar whose gradient at the waveform is `gradient(losses, waveform)`.

        Its value means nothing. Back-propagate it with the losses that stay outside, in one pass.
        """
        return (waveform * self.gradient(losses, waveform)).sum()

    def gradient(self, losses: Mapping[str, Tensor], waveform: Tensor) -> Tensor:
        """Return the balanced gradient, and move the averages on by one step.

        Args:
            losses: scalars, functions of the waveform. Their graphs are kept.
            waveform: decoded audio [B, C, N], float32.
        Raises:
            ValueError: no loss has a weight.
            FloatingPointError: a gradient is not finite. The averages have not moved.
        """
        names = [name for name in losses if name in self.weights]
        if not names:
            raise ValueError(
                f"none of the losses {', '.join(losses)} has a weight: give at least one a weight"
            )
        gradients = [
            torch.autograd.grad(losses[name], waveform, retain_graph=True)[0] for name in names
        ]
        each = [g.flatten(1 if self.per_item else 0).norm(dim=-1).mean() for g in gradients]
        stacked = torch.stack(each)
        norms = (stacked if self._mean is None else self._mean(stacked)).tolist()
        for name, norm in zip(names, norms, strict=True):
            if not math.isfinite(norm):
                raise FloatingPointError(
                    f"the gradient of the loss {name!r} has the norm {norm}, but must be finite: "
                    "lower the learning rates"
                )
        everything = sum(self.weights[name] for name in names)
        scales = []
        for name, norm in zip(names, norms, strict=True):
            self._sums[name] = self.decay * self._sums.get(name, 0.0) + norm
            self._counts[name] = self.decay * self._counts.get(name, 0.0) + 1
            average = self._sums[name] / self._counts[name]
            wanted = self.total * self.weights[name] / everything
            scales.append(wanted / (1e-12 + average) if self.rescale else self.weights[name])
        sizes = [scale * norm for scale, norm in zip(scales, norms, strict=True)]
        whole = sum(sizes) or 1.0
        self.shares = {name: size / whole for name, size in zip(names, sizes, strict=True)}
        self.weight_shares = {name: self.weights[name] / everything for name in names}
        return torch.stack([s * g for s, g in zip(scales, gradients, strict=True)]).sum(0)

    def state_dict(self) -> dict[str, Any]:
        """The averages, JSON-ready."""
        return {"sums": dict(self._sums), "counts": dict(self._counts)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from `state_dict()`."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
