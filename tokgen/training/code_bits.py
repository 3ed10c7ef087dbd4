"""Bits that entropy models spend on the codes of held-out clips.

found = measure_code_bits(tokens, {"model": model})
print(found)                                  # a table: bits per code and level, bits saved
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tokgen.metrics.statistics import Estimate, bootstrap_ratio, format_estimate
from tokgen.modelling.causal import CausalModel, check_all_levels
from tokgen.modelling.code_tables import PreviousFrameTable, StaticTable
from tokgen.results import Grid, Result
from tokgen.tokens.columns import codes_of
from tokgen.tokens.dataset import TokenDataset

__all__ = ["CodeBits", "measure_code_bits"]


@dataclass(frozen=True)
class CodeBits(Result):
    """Bits of each clip and level by method, and what they save of packed codes.

    Attributes:
        bits: method to bits, float64 [clips, K].
        frames: frames of each clip.
        packed: bits of a packed code, ceil(log2(codebook_size)).
        scored_on: what the clips are.
        notes: lines to show under the table.
    """

    bits: dict[str, NDArray[np.float64]]
    frames: NDArray[np.int64]
    packed: int
    scored_on: str
    notes: list[str] = field(default_factory=list)

    def saving(self, method: str) -> Estimate:
        """Percent of packed bits that a method saves, pooled over clips."""
        packed = self.frames * float(self.packed * self.bits[method].shape[1])
        return bootstrap_ratio((100 * (packed - self.bits[method].sum(1))).tolist(), packed)

    def per_code(self, method: str) -> NDArray[np.float64]:
        """Mean bits of a code of each level [K]."""
        return self.bits[method].sum(0) / self.frames.sum()

    def parts(self) -> list[Grid | str]:
        levels = next(iter(self.bits.values())).shape[1]
        head = ["", "saved (%)", "bits per code", *(f"level {k}" for k in range(levels))]
        rows = [
            [
                method,
                format_estimate(self.saving(method), 2),
                f"{self.per_code(method).mean():.3f}",
                *(f"{value:.2f}" for value in self.per_code(method)),
            ]
            for method in self.bits
        ]
        return [Grid([head, *rows]), "", *self.footnotes()]

    def footnotes(self) -> list[str]:
        """Lines under the table."""
        about = f"{len(self.frames)} clips, {self.frames.sum()} frames: {self.scored_on}"
        return [about, f"packed codes have {self.packed} bits", *self.notes]

    def to_dict(self) -> dict[str, Any]:
        rows = {
            method: {
                "saved_percent": self.saving(method).as_dict(),
                "bits_per_code": float(self.per_code(method).mean()),
                "bits_per_code_of_level": self.per_code(method).tolist(),
            }
            for method in self.bits
        }
        about = {"packed_bits": self.packed, "frames": int(self.frames.sum())}
        return {**about, "scored_on": self.scored_on, "rows": rows, "notes": self.notes}

    def records(self) -> list[dict[str, Any]]:
        return [
            {"method": method, "level": level, "bits_per_code": float(value)}
            for method in self.bits
            for level, value in enumerate(self.per_code(method))
        ]


def measure_code_bits(
    tokens: TokenDataset,
    models: Mapping[str, CausalModel],
    *,
    held_out: TokenDataset | None = None,
    split: str = "test",
    block_seconds: float | None = None,
) -> CodeBits:
    """Measure the bits of held-out codes, by models and by tables of the train split.

    Args:
        tokens: dataset whose train split the tables count. Its validation split, if there is one,
            chooses the strengths of the table after the frame before.
        models: models by the name of their row.
        held_out: dataset of the clips to measure; None is `tokens`.
        split: its split.
        block_seconds: models start anew after blocks of this length, as in files; None lets them
            see whole clips.
    Raises:
        ValueError: there is no such split, or the tokens have a variable bitrate.
    """
    check_all_levels(tokens)
    measured = (held_out or tokens).splits
    if not len(measured.get(split, ())):
        raise ValueError(f"no clips in split {split!r}: the tokens have {', '.join(measured)}")
    about = tokens.provenance
    size = about.codebook_size
    clips = [c for c in codes_of(measured[split]) if c.shape[1]]
    train = [c for c in codes_of(tokens.splits["train"]) if c.shape[1]]
    validation = codes_of(tokens.splits["validation"]) if "validation" in tokens.splits else []
    static, previous = StaticTable(train, size), PreviousFrameTable(train, size, validation)
    bits = {
        "static table": np.stack([static.bits(c).sum(1) for c in clips]),
        "previous-frame table": np.stack([previous.bits(c).sum(1) for c in clips]),
    }
    block = None
    if block_seconds is not None:
        block = max(1, round(block_seconds * about.spec.frame_rate))
    for name, model in models.items():
        bits[name] = np.stack([_bits_of(model, clip, block) for clip in clips])
    notes = [] if block is None else [f"models start anew after {block} frames"]
    return CodeBits(
        bits,
        np.array([clip.shape[1] for clip in clips]),
        max(1, (size - 1).bit_length()),
        f"{split} split of {(held_out or tokens).provenance.corpus}",
        notes,
    )


def _bits_of(model: CausalModel, clip: Tensor, block: int | None) -> NDArray[np.float64]:
    """Bits [K] of a clip [K, T] by a model that starts anew in each block."""
    device = next((t.device for t in model.state_dict().values()), torch.device("cpu"))
    parts = clip[None].to(device).split(block or clip.shape[1], -1)
    return np.sum([model.bits(part)[0].double().sum(1).cpu().numpy() for part in parts], 0)
