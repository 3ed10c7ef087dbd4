"""Encode and decode several files. A file that fails does not stop the others.

done = encode_files(["a.wav", "b.mp3"], "speech-16k", "codes/")
done.results[0].path  # codes/a.safetensors
done.failures  # name and reason of each file that failed
decode_files([result.path for result in done.results], "decoded/")
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tokgen.audio.sources import AudioError, display_name
from tokgen.bitstream.files import decode_file, encode_file
from tokgen.bitstream.named_codecs import NamedCodecs, codec_with_beam
from tokgen.bitstream.outputs import AUDIO, CODES, check_outputs, plan_outputs
from tokgen.codec.aligned import GridChoice
from tokgen.codec.base import Codec
from tokgen.codec.checks import check_levels
from tokgen.codec.long_audio import BAR_DELAY
from tokgen.codec.stable.settings import StableDecoding
from tokgen.disk import FULL
from tokgen.results import Grid, Result, one_line, printable
from tokgen.runs.progress import ProgressBar, progress_bar
from tokgen.runs.workers import begin_worker

__all__ = ["CodedFiles", "Failure", "decode_files", "each_file", "encode_files"]

_ONE: Callable[..., Result] | None = None  # what a worker does with each file


@dataclass(frozen=True)
class Failure:
    """A file that could not be encoded or decoded.

    Attributes:
        file: the input file.
        reason: what is wrong.
    """

    file: str
    reason: str

    def __str__(self) -> str:
        return printable(f"{self.file}: {self.reason}")


@dataclass(frozen=True)
class CodedFiles(Result):
    """Files that were encoded or decoded.

    Attributes:
        results: a `CodesFile` or `DecodedFile` for each file that was written, in order.
        failures: files that failed.
    """

    results: list[Result] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 1 if a file failed or is damaged."""
        return int(bool(self.failures) or any(getattr(r, "exit_code", 0) for r in self.results))

    def add(self, ends: Iterable[Result | Failure], bar: ProgressBar) -> None:
        """Add results and failures as they come."""
        for end in ends:
            if isinstance(end, Failure):
                self.failures.append(end)
            else:
                self.results.append(end)
            bar.update()

    def parts(self) -> list[Grid | str]:
        lines: list[Grid | str] = [part for result in self.results for part in result.parts()]
        if self.failures:
            lines.append(f"{len(self.results)} written, {len(self.failures)} failed")
        return lines

    def records(self) -> list[dict[str, Any]]:
        return [record for result in self.results for record in result.records()]

    def to_list(self) -> list[dict[str, Any]]:
        """Return a dict for each file: what its result says, or `file` and `error`."""
        failed = [{"file": f.file, "error": f.reason} for f in self.failures]
        return [result.to_dict() for result in self.results] + failed

    def to_dict(self) -> dict[str, Any]:
        return {"files": self.to_list()}


def encode_files(
    files: Sequence[str | Path],
    codec: str | Path | Codec,
    out: str | Path,
    *,
    n_codebooks: int | None = None,
    beam: int | None = None,
    level: float | None = None,
    bitrate: float | None = None,
    grid: GridChoice = None,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
) -> CodedFiles:
    """Encode audio files into a folder: a.wav becomes a.safetensors, as `plan_outputs` says.

    Args:
        files: the audio files.
        codec: the codec, or its name as in `load_codec`.
        out: folder for the codes files; it is created.
        n_codebooks: levels to keep; None keeps all.
        beam: paths of a beam search, as in `Codec.with_beam`. None leaves the codec as it is.
        level, bitrate: the rate of a codec of variable bitrate, as in `Codec.encode`.
        grid: where frames begin, as in `encode_file`.
        device: device to load a codec on that is given by name.
        progress: show a progress bar if it takes long.
        overwrite: replace existing files.
    Raises:
        FileExistsError: an output exists, and `overwrite` is False. Nothing is encoded.
        FileNotFoundError: no such codec.
        OSError: the disk is full, or `out` cannot be written.
        ValueError: two files would be written to one, or wrong `n_codebooks`, `beam`,
            `level` or `bitrate`.
    """
    outputs = plan_outputs(files, out, CODES)
    check_outputs(outputs, files, overwrite=overwrite, suffixes=[CODES])
    codec = codec_with_beam(codec, beam, device, level=level, bitrate=bitrate)
    more: dict[str, Any] = {"n_codebooks": check_levels(n_codebooks, codec.spec), "grid": grid}
    one = partial(encode_file, codec=codec, overwrite=overwrite, **more)
    return each_file(one, files, outputs, progress=progress)


def decode_files(
    files: Sequence[str | Path],
    out: str | Path,
    codec: str | Path | Codec | None = None,
    *,
    format: str = "wav",
    stable: bool | StableDecoding = False,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
) -> CodedFiles:
    """Decode codes files into a folder: a.safetensors becomes a.wav, as `plan_outputs` says.

    Args:
        files: codes files, of one codec or of several.
        out: folder for the audio files; it is created.
        codec: the codec that made the codes, or its name as in `load_codec`; None is the zoo's
            codec that each file names.
        format: audio format to write.
        stable: as for `decode_file`.
        device: device to load a codec on that is given by name.
        progress: show a progress bar if it takes long.
        overwrite: replace existing files.
    Raises:
        FileExistsError: an output exists, and `overwrite` is False. Nothing is decoded.
        FileNotFoundError: no such codec.
        OSError: the disk is full, or `out` cannot be written.
        ValueError: two files would be written to one, or an unknown format.
    """
    outputs = plan_outputs(files, out, f".{format}")
    check_outputs(outputs, files, overwrite=overwrite, suffixes=AUDIO)
    codecs = NamedCodecs(codec, device)
    one = partial(decode_file, codec=codecs, stable=stable, overwrite=overwrite)
    return each_file(one, files, outputs, progress=progress)


def each_file(
    one: Callable[..., Result],
    files: Sequence[str | Path],
    outputs: Sequence[Path],
    *,
    progress: bool,
    jobs: int = 1,
) -> CodedFiles:
    """Code several files, in `jobs` processes. Results are in the order of the files.

    Args:
        one: called with each file, and with its output as `out`. Processes are forked with what it
            refers to.
        progress: show a progress bar if it takes long: that of `one` if there is one file.
    Raises:
        OSError: the disk is full, or a process died.
    """
    found, pairs = CodedFiles(), list(zip(files, outputs, strict=True))
    several = len(pairs) > 1
    one, show = partial(one, progress=progress and not several), progress and several
    bar = progress_bar("files", total=len(pairs), unit="file", delay=BAR_DELAY, show=show)
    forks = "fork" in multiprocessing.get_all_start_methods()
    with bar:
        if jobs < 2 or not several or not forks:
            ends: Iterable[Result | Failure] = (_one_end(one, pair) for pair in pairs)
            found.add(ends, bar)
            return found
        pool = ProcessPoolExecutor(
            min(jobs, len(pairs)),
            mp_context=multiprocessing.get_context("fork"),
            initializer=_begin,
            initargs=(one,),
        )
        try:
            found.add(pool.map(_in_worker, pairs), bar)
        except BrokenProcessPool as error:
            raise OSError("a process died, perhaps without memory: give fewer jobs") from error
        finally:
            pool.shutdown(cancel_futures=True)
    return found


def _begin(one: Callable[..., Result]) -> None:
    global _ONE
    begin_worker()
    _ONE = one


def _in_worker(pair: tuple[str | Path, Path]) -> Result | Failure:
    assert _ONE is not None
    return _one_end(_ONE, pair)


def _one_end(one: Callable[..., Result], pair: tuple[str | Path, Path]) -> Result | Failure:
    file, path = pair
    try:
        return one(file, out=path)
    except (ValueError, OSError) as error:
        if getattr(error, "errno", None) in FULL:
            raise
        name = display_name(file)
        reason = error.reason if isinstance(error, AudioError) else one_line(str(error))
        return Failure(name, reason.removeprefix(f"{name}: "))
