"""One exported utterance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

__all__ = ["ExportedRow"]


@dataclass(frozen=True)
class ExportedRow:
    """One utterance of an export.

    Attributes:
        id: id of the utterance.
        tokens: its codes in the layout of the export.
        n_samples: length of its audio.
        text: transcript, or None.
        speaker: name, or None.
        side: side information by the name of its column.
    """

    id: str
    tokens: np.ndarray
    n_samples: int
    text: str | None = None
    speaker: str | None = None
    side: dict[str, list[float]] = field(default_factory=dict)

    def about(self) -> dict[str, Any]:
        """Return all but the tokens as JSON values."""
        found = {"id": self.id, "n_samples": self.n_samples, "text": self.text}
        return {**found, "speaker": self.speaker, **({"side": self.side} if self.side else {})}

    @classmethod
    def of(cls, about: Any, tokens: np.ndarray) -> ExportedRow:
        """Return the row of JSON values that `about` returned.

        Raises:
            ValueError: a value is missing, or of another type.
        """
        found = about if isinstance(about, dict) else {}
        wrong = [
            name
            for name, kinds in (
                ("id", str), ("n_samples", int), ("text", (str, type(None))),
                ("speaker", (str, type(None))),
            )
            if name not in found or not isinstance(found[name], kinds)
        ]  # fmt: skip
        side = found.get("side", {})
        if wrong or not isinstance(side, dict):
            raise ValueError(f"{', '.join(wrong) or 'side'} is missing or of the wrong type")
        names = ("id", "n_samples", "text", "speaker")
        return cls(tokens=tokens, side=side, **{name: found[name] for name in names})
