"""Model FLOPs of training a masked transformer, counted by formula, and what GPUs are sold with.

A multiplication and an addition are two. Counted are the products that the mathematics asks for:
attention, feed-forward layers, embeddings, and the head at hidden positions alone. Padding, heads
at other positions and anything that is computed twice do not count, whatever the machine does.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from torch import nn

from tokgen.modelling.masked import MaskedTransformer

# Dense (no sparsity) tensor-core FLOP/s for bfloat16 and float16 with float32 accumulation, as the
# vendors' data sheets give them. The first name that stands in the device's name counts.
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
    """How much there is to compute in a batch.

    Attributes:
        frames: of all excerpts.
        pairs: of frames that attend to each other: the sum of each excerpt's frames squared.
        targets: hidden positions, whose logits the loss needs.
    """

    frames: int = 0
    pairs: int = 0
    targets: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.frames + other.frames, self.pairs + other.pairs, self.targets + other.targets
        )


def training_flops(model: MaskedTransformer, counts: Counts) -> int:
    """Of forward and backward over a batch.

    The backward pass takes twice the forward's products, one for the gradient of the weights and
    one for that of the input; the embeddings' inputs need none.
    """
    parts = list(model.transformer.modules())
    linear = sum(m.weight.numel() for m in parts if isinstance(m, nn.Linear))
    widths = sum(m.to_q.out_features for m in parts if hasattr(m, "to_q"))
    n_levels, size, dim = model.head_weight.shape
    inside = counts.frames * linear + counts.pairs * 2 * widths + counts.targets * size * dim
    embedding = (n_levels + model.conditioning_dim) * dim
    if model.code_vectors is not None:
        embedding += model.embed_codes.weight.numel()
    return 2 * (3 * inside + 2 * counts.frames * embedding)


def peak_flops(device_name: str, precision: str) -> float | None:
    """FLOP/s that a GPU is sold with; None where the table does not know.

    Args:
        device_name: as `torch.cuda.get_device_name` gives it.
        precision: Accelerate's `mixed_precision`; known for "bf16" and "fp16".
    """
    if precision not in ("bf16", "fp16"):
        return None
    known = (peak for name, peak in PEAKS.items() if re.search(rf"\b{name}\b", device_name))
    return next(known, None)
