"""Averages of a model's weights over training: exponential, and uniform over a window."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

__all__ = ["Ema"]


class Ema:
    """Averages of a model's parameters: average <- decay * average + (1 - decay) * weight.

    Under FSDP each process averages its own shards. Buffers are not averaged.

    Args:
        model: the averages start from its current weights.
        decay: in [0, 1). With 0 no averages are kept, and the methods change nothing.
        keep: keep averages with a decay of 0 too, for `update(share)`.
    """

    def __init__(self, model: nn.Module, decay: float, *, keep: bool = False) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay = {decay}: must be at least 0 and below 1")
        self._model, self.decay = model, decay
        self._weights = dict(model.named_parameters()) if decay or keep else {}
        self.restart()

    def _local(self) -> dict[str, Tensor]:
        """Each weight, or this process's shard of it under FSDP."""
        return {
            name: w.to_local() if isinstance(w, DTensor) else w for name, w in self._weights.items()
        }

    @torch.no_grad()
    def update(self, share: float | None = None) -> None:
        """Move the averages towards the current weights. Call it after each optimiser step.

        Args:
            share: of the current weights in the new averages; None means 1 - decay. The shares 1,
                1/2, 1/3 ... give the mean of all weights since the first of them.
        """
        if self._average:
            average, local = list(self._average.values()), list(self._local().values())
            torch._foreach_lerp_(average, local, 1 - self.decay if share is None else share)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """Replace the model's weights by the averages inside the `with` block."""
        kept = {name: w.detach().clone() for name, w in self._local().items()}
        self.apply()
        try:
            yield
        finally:
            self._put(kept)

    def apply(self) -> None:
        """Replace the model's weights by the averages for good."""
        self._put(self._average)

    def restart(self) -> None:
        """Start the averages from the current weights."""
        self._average = {name: w.detach().clone() for name, w in self._local().items()}

    def _put(self, values: dict[str, Tensor]) -> None:
        if not values:
            return
        torch._foreach_copy_([w.detach() for w in self._local().values()], list(values.values()))
        for module in self._model.modules():
            if isinstance(module, FSDPModule):
                module.reshard()  # the next pass must gather the weights again

    def save(self, path: Path) -> None:
        """Write this process's averages as safetensors."""
        if self._average:
            save_file({name: w.cpu().contiguous() for name, w in self._average.items()}, path)

    def load(self, path: Path) -> None:
        """Read the averages that `save` wrote.

        Raises:
            ValueError: the file is of another model or of another number of processes.
        """
        if not self._average:
            return
        found = load_file(path)
        shapes = {name: w.shape for name, w in self._average.items()}
        if {name: w.shape for name, w in found.items()} != shapes:
            raise ValueError(
                f"{path} holds averages of other weights: delete the run's checkpoints"
            )
        for name, average in self._average.items():
            average.copy_(found[name])
