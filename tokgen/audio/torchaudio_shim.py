"""Import torchaudio next to a CPU-only torch.

torchaudio 2.11 from PyPI links CUDA. Beside a torch without CUDA, its import fails with
`OSError: _torchaudio.abi3.so`. Its filterbanks, DCT, resampling and SQUIM models are pure torch, so
they work if a stub replaces the compiled extension.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import torch

__all__ = ["import_torchaudio"]


def import_torchaudio() -> Any:
    """Import torchaudio, with the stub if torch has no CUDA."""
    if torch.version.cuda is None and "torchaudio" not in sys.modules:
        extension = ModuleType("torchaudio._extension")
        extension._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
        extension._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
        extension.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
        sys.modules.setdefault("torchaudio._extension", extension)
    import torchaudio

    return torchaudio
