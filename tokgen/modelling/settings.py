"""Size of a token model. Imports no torch, so that settings are read fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

__all__ = ["PRESETS", "ModelSettings"]

PRESETS: dict[str, dict[str, Any]] = {
    "small": {"dim": 256, "depth": 6, "heads": 4, "dim_head": 64},
    "paper": {"dim": 512, "depth": 12, "heads": 8, "dim_head": 64},
}


@dataclass(frozen=True)
class ModelSettings:
    """Size of a recipe's transformer: a preset of `PRESETS`, and values that replace its own.

    Raises:
        ValueError: unknown preset.
    """

    preset: str = "small"
    dim: int | None = None
    depth: int | None = None
    heads: int | None = None
    dropout: float | None = None
    embedding: str | None = None

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r}: known are {', '.join(PRESETS)}")

    def arguments(self) -> dict[str, Any]:
        """Return arguments for `MaskedTransformer`."""
        changed = {k: v for k, v in vars(self).items() if k != "preset" and v is not None}
        return {**PRESETS[self.preset], **changed}
