"""Plan and check the files that generation writes. This imports no torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokgen.runs.checks import check_writable

__all__ = ["LOSSLESS", "SUFFIXES", "check_generated", "plan_generated"]

SUFFIXES = (".wav", ".flac", ".mp3", ".opus", ".m4a")  # that can be written
LOSSLESS = (".wav", ".flac")


def plan_generated(out: str | Path, n: int) -> list[Path]:
    """Return the files of `n` results: `out`, or out-1.wav, out-2.wav ... if n is above 1.

    Raises:
        ValueError: n is below 1.
    """
    if n < 1:
        raise ValueError(f"n = {n}: must be at least 1, the number of files")
    out = Path(out)
    if n == 1:
        return [out]
    width = len(str(n))
    return [out.with_name(f"{out.stem}-{i:0{width}}{out.suffix}") for i in range(1, n + 1)]


def check_generated(
    out: str | Path,
    n: int,
    *,
    inputs: Sequence[str | Path] = (),
    stable: bool = False,
    overwrite: bool = False,
) -> list[Path]:
    """Return the files that `generate_files` writes, after a check that they can be written.

    Raises:
        ValueError: n is below 1; a file is an input or has another suffix; or `stable` with a lossy
            format.
        FileExistsError: a file exists, and `overwrite` is False.
        OSError: a folder cannot be written to.
    """
    paths = plan_generated(out, n)
    if stable and Path(out).suffix.lower() not in LOSSLESS:
        raise ValueError(
            f"{out} with stable: the format changes the codes again; write {' or '.join(LOSSLESS)}"
        )
    for path in paths:
        check_writable(path, overwrite=overwrite, inputs=inputs, suffixes=SUFFIXES)
    return paths
