"""Settings of quantizers. Imports no torch, so that settings are read fast."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tokgen.runs.checks import check_least

__all__ = ["NETWORKS", "SURROGATES", "WIDTHS", "VariableSettings"]

WIDTHS = (512, 128, 32, 8)  # channels between the convolutions of an importance network
# Kernel sizes. The public network has one convolution more, which keeps the number of channels.
NETWORKS = {"paper": (5, 3, 3, 3, 1), "public": (3, 3, 3, 3, 3, 3)}
SURROGATES = ("logcosh", "square", "sigmoid")


@dataclass(frozen=True)
class VariableSettings:
    """How a variable bitrate is trained, see `tokgen.quantizers.variable`.

    In training, most items of a batch keep levels by their importance, each at a scale of its own;
    then come items that keep a random number of levels; the last ones keep all.

    Attributes:
        network: importance network, "paper" (five convolutions) or "public" (six, as in the
            authors' code).
        widths: channels between its convolutions; fewer than four leave convolutions out.
        surrogate: function whose gradient trains the importance, "logcosh" (the paper), "square" or
            "sigmoid".
        alpha: sharpness of the surrogate, above 0.
        scales: the lowest and the highest scale in training.
        log_scales: draw scales uniformly in their logarithm.
        full_share: share of items that keep all levels.
        dropout_share: share of items that keep a random number of levels.
        detach: the importance does not train the encoder.
        importance_only: only the importance network trains. The codec that the training starts from
            keeps its weights to the bit, and so its codes.
    """

    network: str = "paper"
    widths: tuple[int, ...] = WIDTHS
    surrogate: str = "logcosh"
    alpha: float = 2.0
    scales: tuple[float, float] = (0.125, 6.0)
    log_scales: bool = False
    full_share: float = 0.25
    dropout_share: float = 0.0
    detach: bool = False
    importance_only: bool = False

    def __post_init__(self) -> None:
        if self.network not in NETWORKS:
            raise ValueError(f"network {self.network!r}: known are {', '.join(NETWORKS)}")
        if self.surrogate not in SURROGATES:
            raise ValueError(f"surrogate {self.surrogate!r}: known are {', '.join(SURROGATES)}")
        if not 0 < self.alpha < math.inf:
            raise ValueError(f"alpha = {self.alpha}: must be above 0 and finite")
        if not 0 < self.scales[0] <= self.scales[1] < math.inf:
            raise ValueError(f"scales = {self.scales}: must be above 0, the lowest first")
        check_least(self, full_share=0, dropout_share=0)
        if self.full_share + self.dropout_share >= 1:
            raise ValueError(
                f"full_share + dropout_share = {self.full_share + self.dropout_share:g}: must be "
                "below 1"
            )
