"""Formats of exported codecs, and the names of their files. Imports no torch."""

from __future__ import annotations

from pathlib import Path

from tokgen.runs.checks import check_writable

__all__ = ["FORMATS", "NUMBERS", "check_outputs", "names_of"]

FORMATS = ("onnx", "pt2")
NUMBERS = "codec.json"


def names_of(format: str) -> tuple[str, str, str]:
    """Return the names of an export's files: encoder, decoder and the codec's numbers.

    Raises:
        ValueError: unknown format.
    """
    if format not in FORMATS:
        raise ValueError(f"format {format!r}: known are {', '.join(FORMATS)}")
    return f"encoder.{format}", f"decoder.{format}", NUMBERS


def check_outputs(out: str | Path, format: str = "onnx", *, overwrite: bool = False) -> None:
    """Check that the files of `export_codec` can be written.

    The codec's numbers may be there if they belong to an export in another format.

    Raises:
        FileExistsError, ValueError, OSError: as `tokgen.runs.checks.check_writable`, or an unknown
            format.
    """
    *programs, numbers = names_of(format)
    others = [name for each in FORMATS if each != format for name in names_of(each)[:2]]
    shared = all((Path(out) / name).is_file() for name in others)
    for name in (*programs, *([] if shared else [numbers])):
        check_writable(Path(out) / name, overwrite=overwrite)
