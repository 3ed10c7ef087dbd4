"""Model FLOPs of training a masked transformer, and the peak FLOP/s of GPUs.

A multiplication and an addition count as two. The formula counts the matrix products of attention,
feed-forward layers, embeddings, and of the heads at hidden positions. It leaves out padding, heads
at other positions and recomputation.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from tokgen.modelling.masked import MaskedTransformer

__all__ = ["PEAKS", "Counts", "peak_flops", "training_flops"]

# Dense tensor-core FLOP/s for bfloat16 and float16 with float32 accumulation, by the vendors'
# data sheets. The first key found in the device's name applies.
PEAKS = {
    "B200": 2250e12,
    "H200": 989e12,
    "H100 NVL": 835e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "GH200": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "RTX 4090": 165e12,
}


@dataclass(frozen=True)
class Counts:
    """Amount of computation in a batch.

    Attributes:
        frames: frames of all excerpts.
        pairs: pairs of frames that attend to each other, the sum of squared excerpt lengths.
        targets: hidden positions.
    """

    frames: int = 0
    pairs: int = 0
    targets: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.frames + other.frames, self.pairs + other.pairs, self.targets + other.targets
        )


def training_flops(model: MaskedTransformer, counts: Counts) -> int:
    """FLOPs of the forward and the backward pass over a batch.

    The backward pass has twice the products of the forward pass: for the gradients of the weights
    and of the inputs. The embeddings' inputs need no gradient.
    """
    parts = list(model.transformer.modules())
    linear = sum(m.weight.numel() for m in parts if isinstance(m, nn.Linear))
    widths = sum(m.to_q.out_features for m in parts if hasattr(m, "to_q"))
    n_levels, size, dim = model.head_weight.shape
    inside = counts.frames * linear + counts.pairs * 2 * widths + counts.targets * size * dim
    embedding = (n_levels + model.conditioning_dim) * dim
    if model.variable_depth:
        embedding += n_levels * dim  # PAD
    if model.code_vectors is not None:
        embedding += model.embed_codes.weight.numel()
    return 2 * (3 * inside + 2 * counts.frames * embedding)


def peak_flops(device_name: str, precision: str) -> float | None:
    """Peak FLOP/s of a GPU by its data sheet; None if unknown.

    Args:
        device_name: from `torch.cuda.get_device_name`.
        precision: Accelerate's `mixed_precision`; peaks are known for "bf16" and "fp16".
    """
    if precision not in ("bf16", "fp16"):
        return None
    known = (peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", device_name))
    return next(known, None)
