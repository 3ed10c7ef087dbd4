"""Check the folder of an export. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from tokgen.runs.checks import check_folder

__all__ = ["EXPORT", "KIND", "check_export"]

EXPORT = "export.json"
KIND = "tokgen export 1"


def check_export(out: str | Path, *, overwrite: bool = False) -> None:
    """Check that an export can be written to a folder.

    Raises:
        FileExistsError: the folder exists, and `overwrite` is False; or it is no export.
        OSError: the folder above it cannot be written to.
    """
    out = Path(out)
    if out.exists():
        if not overwrite:
            raise FileExistsError(f"{out} already exists: give another folder, or set overwrite")
        if not (out / EXPORT).is_file():
            raise FileExistsError(
                f"{out} is no export of this command (it has no {EXPORT}): give another folder"
            )
    check_folder(out.absolute().parent)
