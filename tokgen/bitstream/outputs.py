"""Plan and check the files that encoding and decoding write. This imports no torch.

plan_outputs(["a.wav", "b.mp3"], "codes/", CODES)  # codes/a.safetensors, codes/b.safetensors
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokgen.runs.checks import check_writable

__all__ = ["AUDIO", "CODES", "TGC", "check_outputs", "plan_outputs"]

CODES = ".safetensors"
TGC = ".tgc"
AUDIO = (".wav", ".flac", ".mp3", ".opus", ".m4a")  # suffixes that `decode_file` writes


def plan_outputs(files: Sequence[str | Path], out: str | Path, suffix: str) -> list[Path]:
    """Return the output file of each input.

    One input is written to `out`, or into `out` if it is a folder: if it exists as one or ends in a
    slash. Several inputs are written into the folder `out`. There a.wav becomes a.safetensors. If
    inputs differ in their suffix only, they keep it: a.wav.safetensors and a.flac.safetensors.

    Raises:
        ValueError: `out` is a file for several inputs, or two inputs would be written to one file.
    """
    folder = Path(out)
    if len(files) == 1 and not folder.is_dir() and not str(out).endswith("/"):
        return [folder]
    if folder.is_file() or (len(files) > 1 and folder.suffix.lower() == suffix):
        raise ValueError(f"{folder} is a file: give a folder for {len(files)} files")
    stems = Counter(_key(Path(file).stem) for file in files)
    found: dict[str, tuple[str | Path, Path]] = {}
    for file in files:
        path = Path(file)
        name = path.stem if stems[_key(path.stem)] == 1 else path.name
        output = folder / f"{name}{suffix}"
        other = found.setdefault(_key(output.name), (file, output))
        if other[1] is not output:
            raise ValueError(
                f"{other[0]} and {file} would both be written to {output}: give them in two "
                "commands, with another folder"
            )
    return [output for _, output in found.values()]


def check_outputs(
    outputs: Sequence[Path],
    inputs: Sequence[str | Path],
    *,
    overwrite: bool,
    suffixes: Sequence[str],
) -> None:
    """Raise the error of `check_writable` for the first output that cannot be written."""
    for output in outputs:
        check_writable(output, overwrite=overwrite, inputs=inputs, suffixes=suffixes)


def _key(name: str) -> str:
    """Return what is equal for names that are one file on some disks."""
    return unicodedata.normalize("NFC", name).casefold()
