"""Outputs of reference implementations, if they are at hand.

`$TOKGEN_VECTORS` names their folder. The project does not contain them; without the variable, the
tests that need them are skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor


def load_vectors(name: str) -> dict[str, Tensor]:
    """Read `<name>.npz` as tensors, or skip the test."""
    folder = os.environ.get("TOKGEN_VECTORS")
    if not folder:
        pytest.skip("TOKGEN_VECTORS does not name the folder of reference outputs")
    with np.load(Path(folder) / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays.files}
