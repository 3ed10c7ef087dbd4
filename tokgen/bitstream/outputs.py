"""Plan and check the files that encoding and decoding write. This imports no torch.

plan_outputs(["a.wav", "b.mp3"], "codes/", CODES)  # codes/a.safetensors, codes/b.safetensors
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tokgen.runs.checks import check_writable

__all__ = ["AUDIO", "CODES", "TGC", "check_outputs", "plan_outputs", "plan_tree"]

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


def plan_tree(
    files: Sequence[str | Path], out: str | Path, suffix: str, kinds: Sequence[str]
) -> tuple[list[Path], list[Path]]:
    """Return the input files and the output of each; folders give the files below them.

    Files keep their place below a folder: `speech` with a/b.wav and `out` give out/a/b.tgc.

    Args:
        kinds: suffixes of the files to use in folders, lowercase.
    Raises:
        FileNotFoundError: folders without such files.
        ValueError: as `plan_outputs`.
    """
    if not any(Path(file).is_dir() for file in files):
        return [Path(file) for file in files], plan_outputs(files, out, suffix)
    groups: dict[Path, list[Path]] = {}
    for file in map(Path, files):
        if not file.is_dir():
            groups.setdefault(Path(), []).append(file)
            continue
        root = file.resolve()
        for path in sorted(p for p in file.rglob("*") if p.suffix.lower() in kinds):
            if path.is_file() and path.resolve().is_relative_to(root):
                groups.setdefault(path.parent.relative_to(file), []).append(path)
    inputs = [path for group in groups.values() for path in group]
    if not inputs:
        raise FileNotFoundError(f"no {', '.join(kinds)} files in {', '.join(map(str, files))}")
    outputs = [
        path
        for place, g in groups.items()
        for path in plan_outputs(g, f"{Path(out) / place}/", suffix)
    ]
    return inputs, outputs


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
