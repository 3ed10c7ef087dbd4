"""The training of a causal model of codes: predict each code from the codes before it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from tokgen.codec.base import Codec
from tokgen.modelling.causal import CausalModel, CausalTransformer, code_bits
from tokgen.modelling.causal_depth import CausalDepthNetwork
from tokgen.tokens.dataset import TokenDataset
from tokgen.training.excerpts import CropDataset, TokenBatch, collate
from tokgen.training.loop import Training
from tokgen.training.settings import CausalTrainingSettings

__all__ = ["CausalTraining", "make_causal_model"]

_KINDS: dict[str, type[CausalModel]] = {
    "depth": CausalDepthNetwork,
    "transformer": CausalTransformer,
}


def make_causal_model(
    codec: Codec, tokens: TokenDataset, settings: CausalTrainingSettings
) -> CausalModel:
    """Create the model that the settings describe.

    Raises:
        ValueError: a size is not one of the model's, or the tokens are of another codec.
    """
    kind = _KINDS[settings.kind]
    try:
        return kind.for_tokens(codec, tokens, **settings.model)
    except TypeError as error:
        raise ValueError(f"model = {dict(settings.model)}: {error}") from error


class CausalTraining(Training[CausalModel, CausalTrainingSettings, TokenBatch]):
    """One training run of a causal model; see `Training`. It logs bits per code."""

    objective = "bits"
    adamw: ClassVar = {"betas": (0.9, 0.98)}

    def passes(self, first: int) -> Iterator[TokenBatch]:
        s, accelerator = self.settings, self.accelerator
        each, n_passes = s.batch_size * accelerator.num_processes, s.steps * s.gradient_accumulation
        data = CropDataset(self.split, self.crop_frames, n_items=n_passes * each, seed=s.seed)
        for j in range(first, n_passes):
            begin = j * each + accelerator.process_index * s.batch_size
            batch = collate([data[i] for i in range(begin, begin + s.batch_size)])
            batch.codes = batch.codes[:, : self._levels(j)]
            yield batch

    def _levels(self, j: int) -> int:
        """Levels of the batch of pass j."""
        draw = np.random.default_rng((self.settings.seed, j, 2))
        n = self.model.n_codebooks
        few = draw.random() < self.settings.level_dropout
        return int(draw.integers(1, n + 1)) if few else n

    def loss(self, batch: TokenBatch) -> Tensor:
        """Run the network on a batch; returns the mean bits per code."""
        bits, inside = self._bits(batch)
        levels = bits.shape[1]
        self._sums[0, :levels] += bits.detach().sum((0, 2))
        self._sums[1, :levels] += inside
        return bits.sum() / (inside * levels)

    def _bits(self, batch: TokenBatch) -> tuple[Tensor, Tensor]:
        """Bits of each code [B, n, T], 0 after each item's end, and the number of frames."""
        with self.accelerator.autocast():
            logits = self.network(batch.codes)
        inside = torch.arange(batch.codes.shape[-1], device=batch.codes.device)
        inside = inside < batch.lengths[:, None]
        return code_bits(logits, batch.codes) * inside[:, None], batch.lengths.sum()

    def empty_sums(self) -> Tensor:
        """Zeros for bits and frames per level."""
        return torch.zeros(2, self.model.n_codebooks, dtype=torch.float64)

    def describe(self, sums: Tensor, prefix: str = "") -> dict[str, float]:
        """Bits per code, over all levels and of each level."""
        bits, frames = sums.cpu().numpy()
        levels = {f"{prefix}bits/level{k}": bits[k] / frames[k] for k in np.flatnonzero(frames)}
        mean = float(bits.sum() / frames.sum()) if frames.sum() else math.nan
        return {f"{prefix}bits": mean, **{k: float(v) for k, v in levels.items()}}

    def validate(self, batches: Callable[[int], Iterator[TokenBatch]]) -> dict[str, float]:
        total = self.empty_sums()
        for batch in batches(self.settings.batch_size):
            bits, inside = self._bits(batch)
            total[0] += bits.sum((0, 2)).cpu()
            total[1] += inside
        return self.describe(total, "validation/")
