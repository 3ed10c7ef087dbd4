"""Names of splits, and the split of an utterance that has none."""

from __future__ import annotations

import hashlib

__all__ = ["LONGEST_SPLIT", "SPLIT_NAMES", "assign_split", "split_kind"]

SPLIT_NAMES = {"train": "train", "test": "test", "validation": "validation"} | dict.fromkeys(
    ("val", "valid", "dev"), "validation"
)
LONGEST_SPLIT = 100  # bytes; file names have the split's name


def split_kind(split: str) -> str:
    """Return "train", "validation" or "test" for a part such as "train-clean-100", or ""."""
    return SPLIT_NAMES.get(split.lower().replace(".", "-").replace("_", "-").split("-")[0], "")


def assign_split(id: str) -> str:
    """Return a split for an utterance that has none: 90/5/5 by the SHA-256 of its id."""
    part = int.from_bytes(hashlib.sha256(id.encode("utf-8", "replace")).digest()[:8], "big") % 100
    return "train" if part < 90 else "validation" if part < 95 else "test"
