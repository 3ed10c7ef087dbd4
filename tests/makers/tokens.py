"""Token datasets as plain values for comparisons."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tokgen.tokens.dataset import load_tokens


def rows_of(out: str | Path) -> dict[str, list[dict]]:
    """Return every row of a token dataset, by split."""
    return {
        split: [{k: np.asarray(v).tolist() for k, v in row.items()} for row in data]
        for split, data in load_tokens(out).splits.items()
    }
