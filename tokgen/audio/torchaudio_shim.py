"""Let torchaudio be imported next to a CPU-only torch.

torchaudio 2.11 from PyPI links CUDA. Next to a torch without CUDA, its import fails with
`OSError: _torchaudio.abi3.so`, and with it those of transformers' audio classes. Its filterbanks,
DCT, resampling and SQUIM models are pure torch, so they work without the compiled extension.
"""

from __future__ import annotations

from types import ModuleType
from typing import Any

from tokgen.imports import Execute, wrap_import

__all__ = ["allow_torchaudio", "import_torchaudio"]


def allow_torchaudio() -> None:
    """Let `import torchaudio` succeed from now on, with a stub if its extension cannot be loaded.

    `import tokgen` calls this, so that transformers' audio classes can be imported after it.
    """
    wrap_import("torchaudio._extension", _load_or_stub)


def import_torchaudio() -> Any:
    """Import torchaudio, with the stub if its extension cannot be loaded."""
    allow_torchaudio()
    import torchaudio

    return torchaudio


def _load_or_stub(execute: Execute, module: ModuleType) -> None:
    try:
        execute(module)
    except OSError:
        module._IS_TORCHAUDIO_EXT_AVAILABLE = False  # type: ignore[attr-defined]
        module._IS_ALIGN_AVAILABLE = False  # type: ignore[attr-defined]
        module.fail_if_no_align = lambda function: function  # type: ignore[attr-defined]
