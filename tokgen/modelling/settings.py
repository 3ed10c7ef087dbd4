"""Size of a token model. Imports no torch, so that settings are read fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["KINDS", "PRESETS", "ModelSettings"]

KINDS = ("masked", "delay")

PRESETS: dict[str, dict[str, Any]] = {
    "small": {"dim": 256, "depth": 6, "heads": 4, "dim_head": 64},
    "paper": {"dim": 512, "depth": 12, "heads": 8, "dim_head": 64},
}


@dataclass(frozen=True)
class ModelSettings:
    """Kind and size of a recipe's transformer: a preset, and values that replace its own.

    Attributes:
        preset: a name in `PRESETS`.
        dim, depth, heads, dropout, embedding: values that replace the preset's.
        kind: "masked" (SoundStorm's parallel decoding) or "delay" (autoregressive, with MusicGen's
            delay pattern).
    Raises:
        ValueError: unknown preset or kind.
    """

    preset: str = "small"
    dim: int | None = None
    depth: int | None = None
    heads: int | None = None
    dropout: float | None = None
    embedding: str | None = None
    kind: Literal["masked", "delay"] = "masked"

    def __post_init__(self) -> None:
        if self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r}: known are {', '.join(PRESETS)}")
        if self.kind not in KINDS:
            raise ValueError(f"kind {self.kind!r}: known are {', '.join(KINDS)}")

    def arguments(self) -> dict[str, Any]:
        """Return arguments for `TokenTransformer`."""
        sizes = {k: v for k, v in vars(self).items() if k not in ("preset", "kind")}
        changed = {k: v for k, v in sizes.items() if v is not None}
        return {**PRESETS[self.preset], **changed}
