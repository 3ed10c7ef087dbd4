"""An exponential moving average of a model's weights, in whole or in each process's shards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor
from torch.optim.swa_utils import get_ema_multi_avg_fn


class Ema:
    """average <- decay * average + (1 - decay) * weight, after each step.

    Args:
        model: whose weights are averaged; begin with those it has now.
        decay: in (0, 1).
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay = {decay}: must be above 0 and below 1")
        self._model = model
        self._weights = dict(model.named_parameters())
        self._average = {name: w.detach().clone() for name, w in self._local().items()}
        self._blend = get_ema_multi_avg_fn(decay)

    def _local(self) -> dict[str, Tensor]:
        """What this process holds of each weight: all of it, or its shard under FSDP."""
        return {
            name: w.to_local() if isinstance(w, DTensor) else w for name, w in self._weights.items()
        }

    @torch.no_grad()
    def update(self) -> None:
        """Take in the weights as they are now."""
        self._blend(list(self._average.values()), list(self._local().values()), 0)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The model has the averages for its weights inside."""
        local = [w.detach() for w in self._local().values()]
        average = list(self._average.values())
        kept = [w.clone() for w in local]
        self._put(local, average)
        try:
            yield
        finally:
            self._put(local, kept)

    def _put(self, local: list[Tensor], values: list[Tensor]) -> None:
        torch._foreach_copy_(local, values)
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # else the next pass would use what an earlier one gathered

    def save(self, path: Path) -> None:
        """Write this process's averages as safetensors."""
        save_file({name: w.cpu().contiguous() for name, w in self._average.items()}, path)

    def load(self, path: Path) -> None:
        """Take up what `save` wrote.

        Raises:
            ValueError: of another model, or of another number of shards.
        """
        found = load_file(path)
        shapes = {name: w.shape for name, w in self._average.items()}
        if {name: w.shape for name, w in found.items()} != shapes:
            raise ValueError(
                f"{path} holds averages of other weights: delete the run's checkpoints"
            )
        for name, average in self._average.items():
            average.copy_(found[name])


@torch.no_grad()
def ema_update(average: nn.Module, current: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * current; decay 0 copies."""
    old = [p for p in average.state_dict().values() if p.is_floating_point()]
    new = [p for p in current.state_dict().values() if p.is_floating_point()]
    torch._foreach_lerp_(old, [n.to(o) for n, o in zip(new, old, strict=True)], 1.0 - decay)
