"""Sessions of the ONNX files in the wheel of speechmos.

The wheel's own code is not run: it needs librosa, and its threads would not survive a fork.
"""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

from tokgen.extras import require

__all__ = ["open_session", "speechmos_version"]


def open_session(file: str) -> Any:
    """Open a file of speechmos, such as "dnsmos_models/model_v8.onnx", on one thread of the CPU.

    Raises:
        ModuleNotFoundError: speechmos or onnxruntime is missing; the error names the extra.
    """
    folder = Path(str(require("speechmos", "quality").__file__)).parent
    package = require("onnxruntime", "quality")
    options = package.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3  # errors
    return package.InferenceSession(folder / file, options, providers=["CPUExecutionProvider"])


def speechmos_version() -> str:
    """Return the version of speechmos."""
    return version("speechmos")
