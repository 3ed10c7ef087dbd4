"""Size of a text model. Imports no torch, so that settings are read fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["SPEEDS", "UNITS", "TextModelSettings", "check_speed"]

UNITS = ("characters", "phonemes")
SPEEDS = (0.25, 4.0)  # slowest and fastest speech


@dataclass(frozen=True)
class TextModelSettings:
    """Size of a recipe's text model.

    Attributes:
        dim: width.
        encoder_depth: layers over the symbols.
        decoder_depth: layers over the frames.
        kernel: symbols or frames that a layer sees, an odd number.
        dropout: in all layers.
    """

    dim: int = 128
    encoder_depth: int = 3
    decoder_depth: int = 4
    kernel: int = 5
    dropout: float = 0.2

    def __post_init__(self) -> None:
        for name in ("dim", "encoder_depth", "decoder_depth"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)}: must be at least 1")
        if self.kernel < 1 or self.kernel % 2 == 0:
            raise ValueError(f"kernel = {self.kernel}: must be odd and at least 1")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout = {self.dropout}: must be at least 0 and below 1")

    def arguments(self) -> dict[str, Any]:
        """Return arguments for `TextModel`."""
        return dict(vars(self))


def check_speed(speed: float) -> None:
    """Raise ValueError for a speed of speech that is out of range."""
    if not SPEEDS[0] <= speed <= SPEEDS[1]:
        low, high = SPEEDS
        raise ValueError(
            f"speed = {speed}: must be between {low:g} and {high:g}; 1 is that of training"
        )
