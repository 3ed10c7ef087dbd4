"""Checks of each verb's files and names, before a library is imported or a codec is loaded.

The values of settings are checked by the settings themselves.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tokgen.bitstream.outputs import AUDIO, CODES, TGC, check_outputs, plan_outputs
from tokgen.cli import model_settings, settings
from tokgen.corpus.settings import check_corpus
from tokgen.generation.generators import check_generator
from tokgen.generation.outputs import check_generated
from tokgen.runs.checks import check_folder, check_writable
from tokgen.runs.device import check_device
from tokgen.storage import local_path
from tokgen.tokens.export.outputs import check_export
from tokgen.tokens.places import is_dataset_place
from tokgen.zoo.export.settings import check_outputs as check_outputs_of_codec
from tokgen.zoo.names import check_name

__all__ = ["STREAM", "check", "plan"]

STREAM = "-"  # standard input or output
_WRITERS = settings.Encode | settings.Decode | settings.Compress | settings.Decompress
_SUFFIXES: dict[type, str] = {settings.Encode: CODES, settings.Compress: TGC}


def check(s: Any) -> None:
    """Check the files and names in a verb's settings.

    Raises:
        ValueError, OSError: a name is unknown, an input does not exist, or an output cannot be
            written.
    """
    if hasattr(s, "device"):
        check_device(s.device)
    codecs = _codecs_of(s)
    for i, codec in enumerate(codecs):
        if not codec:
            raise ValueError(
                'codec is "": give a name that `tokgen codecs` lists, a folder, or a hub id'
            )
        if Path(codec).is_file():
            also = (
                f", a dataset, or a {TGC} or {CODES} file" if isinstance(s, settings.Info) else ""
            )
            raise ValueError(f"{codec} is a file: give the name or the folder of a codec{also}")
        check_name(codec, waveform=isinstance(s, settings.Drift | settings.Score))
        if codec in codecs[:i]:
            raise ValueError(f"codec {codec} is given twice")
    if hasattr(s, "corpus"):
        check_corpus(s.corpus)
    if isinstance(s, settings.Score) and s.mos_reference and not s.mos_reference.is_file():
        raise FileNotFoundError(f"mos_reference: no such file: {s.mos_reference}")
    if isinstance(s, settings.Drift):
        check_folder(s.out)
    if isinstance(s, settings.Tokenize) and (out := local_path(s.out)) is not None:
        check_folder(out.parent)
    if isinstance(s, settings.Export):
        check_outputs_of_codec(s.out, s.format, overwrite=s.overwrite)
    if isinstance(s, settings.Report):
        _check_report(s)
    if isinstance(s, model_settings.ExportTokens):
        check_export(s.out, overwrite=s.overwrite)
    if isinstance(s, model_settings.Generate):
        _check_generate(s)
    if isinstance(s, _WRITERS):
        _check_files(s)


def plan(s: Any) -> list[Path]:
    """Return the output file of each input."""
    suffix = _SUFFIXES.get(type(s)) or f".{s.format or 'wav'}"
    return plan_outputs(s.files, s.out, suffix)


def _check_files(s: Any) -> None:
    if "" in s.files:
        kind = {settings.Decode: f"a {CODES}", settings.Decompress: f"a {TGC}"}
        raise ValueError(
            f'a file name is "": give the name of {kind.get(type(s), "an audio")} file, or '
            f"{STREAM} for the standard input"
        )
    if not s.out:
        raise ValueError(f'out is "": give a file, a folder, or {STREAM} for the standard output')
    if STREAM in s.files and len(s.files) > 1:
        raise ValueError(f"{STREAM} is the standard input: give it without other files")
    if STREAM in s.files and (sys.stdin is None or sys.stdin.isatty()):
        raise ValueError(f"{STREAM} is the standard input, and nothing is piped into it")
    files = [file for file in s.files if file != STREAM]
    folders = [file for file in files if Path(file).is_dir()]
    if not isinstance(s, settings.Compress | settings.Decompress):
        _check_no_folder(folders, isinstance(s, settings.Encode))
    if files and not any(Path(file).exists() for file in files):
        raise FileNotFoundError(f"no such file: {files[0]}")
    if s.out == STREAM:
        if len(s.files) > 1:
            raise ValueError(f"--out {STREAM} takes one file: give a folder for {len(files)} files")
        if sys.stdout is None or sys.stdout.isatty():
            raise ValueError(f"--out {STREAM} writes no sound to a terminal: redirect it to a file")
        return
    if folders:
        check_folder(s.out)
        return
    outputs = plan(s)
    wanted = getattr(s, "format", None)
    if wanted is not None and outputs[0].suffix.lower() != f".{wanted}":
        raise ValueError(f"--format {wanted}, but --out {s.out} ends in another suffix")
    if STREAM in s.files and str(outputs[0]) != s.out.rstrip("/"):
        raise ValueError(f"{s.out} is a folder: give the name of a file for the standard input")
    known = [_SUFFIXES[type(s)]] if type(s) in _SUFFIXES else AUDIO
    check_outputs(outputs, files, overwrite=s.overwrite, suffixes=known)


def _check_no_folder(folders: Sequence[str], encode: bool) -> None:
    for folder in folders:
        verb = "`tokgen tokenize` encodes folders" if encode else "give its files"
        raise ValueError(f"{folder} is a folder: {verb}")


def _check_generate(s: model_settings.Generate) -> None:
    check_generator(s.model, speaks=s.text is not None)
    files = [file for file in (s.like, s.continue_, s.infill, s.vary) if file is not None]
    for file in files:
        if not Path(file).is_file():
            raise FileNotFoundError(f"no such file: {file or repr(file)}")
    check_generated(s.out, s.n, inputs=files, stable=s.stable, overwrite=s.overwrite)


def _check_report(s: settings.Report) -> None:
    for run in s.runs:
        if not run.is_dir():
            raise FileNotFoundError(f"{run}: no such folder; give the folder of a run")
    out = s.out or (s.runs[0] if len(s.runs) == 1 else Path()) / "report.html"
    check_writable(out, overwrite=True, suffixes=[".html", ".htm"])  # a report may be replaced


def _codecs_of(s: Any) -> list[str]:
    if isinstance(s, settings.Info) and (
        s.codec.lower().endswith((TGC, CODES)) or is_dataset_place(s.codec)
    ):
        return []
    codec = None if getattr(s, "revision", None) else getattr(s, "codec", None)
    return codec if isinstance(codec, list) else [] if codec is None else [codec]
