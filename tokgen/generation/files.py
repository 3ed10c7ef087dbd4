"""Generate utterances and write them as audio files: `generate_files`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tokgen.audio.files import write_audio
from tokgen.codec.base import Codec
from tokgen.codec.stable.settings import StableDecoding
from tokgen.generation.generate import load_generator
from tokgen.generation.outputs import check_generated
from tokgen.generation.request import Request
from tokgen.generation.settings import SamplingSettings, WindowSettings, check_seed
from tokgen.generation.speech import Speaker
from tokgen.generation.windows import Windows
from tokgen.modelling.transformer import TokenTransformer
from tokgen.results import Grid, Result

__all__ = ["GeneratedFile", "GeneratedFiles", "generate_files"]


@dataclass(frozen=True)
class GeneratedFile:
    """One audio file that was generated.

    Attributes:
        path: the file.
        seed: seed that makes it again.
        n_samples: length at the codec's rate.
        sample_rate: the codec's rate in Hz.
        seconds: time that sampling took.
        n_clipped: samples outside [-1, 1], which were clipped.
        kept: share of the codes that encoding the file gives again; None for plain decoding.
    """

    path: Path
    seed: int
    n_samples: int
    sample_rate: int
    seconds: float
    n_clipped: int
    kept: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the file as JSON values."""
        found = {**vars(self), "path": str(self.path)}
        return {name: value for name, value in found.items() if value is not None}


@dataclass(frozen=True)
class GeneratedFiles(Result):
    """The files of one call of `generate_files`.

    Attributes:
        codec: name of the codec.
        results: the files.
    """

    codec: str
    results: list[GeneratedFile]

    def parts(self) -> list[Grid | str]:
        lines = []
        for file in self.results:
            stable = "" if file.kept is None else f", {100 * file.kept:.2f} % of the codes stable"
            length = file.n_samples / file.sample_rate
            lines.append(
                f"{file.path}: {length:.2f} s by {self.codec}, seed {file.seed}, sampled in "
                f"{file.seconds:.1f} s{stable}"
            )
        return list(lines)

    def to_dict(self) -> dict[str, Any]:
        return {"codec": self.codec, "files": [file.to_dict() for file in self.results]}

    def records(self) -> list[dict[str, Any]]:
        return [{"codec": self.codec, **file.to_dict()} for file in self.results]


def generate_files(
    model: TokenTransformer | Speaker | str | Path,
    out: str | Path,
    codec: Codec | str | Path | None = None,
    *,
    n: int = 1,
    seed: int = 0,
    settings: SamplingSettings | None = None,
    stable: bool | StableDecoding = False,
    window_seconds: float = WindowSettings.window_seconds,
    overlap_seconds: float = WindowSettings.overlap_seconds,
    device: str | torch.device = "auto",
    overwrite: bool = False,
    progress: bool = True,
    **given: Any,
) -> GeneratedFiles:
    """Generate utterances as `tokgen.generate` does, and write them as audio files.

    File i of n has the seed `seed + i - 1`, so that each can be made again alone.

    Args:
        model, codec, settings, stable, window_seconds, overlap_seconds, device: as for `generate`.
        out: .wav, .flac, .mp3, .opus or .m4a file to write, completely or not at all. With n above
            1, speech.wav becomes speech-1.wav, speech-2.wav ...
        n: number of files.
        seed: seed of the first file.
        overwrite: replace existing files.
        progress: show a bar for what takes long.
        given: text, speed, like, prompt, seconds, infill, start, end, vary and keep, as for
            `generate`.
    Raises:
        FileExistsError: a file exists, and `overwrite` is False.
        ValueError, FileNotFoundError, OSError: as for `generate`, or a file cannot be written.
    """
    check_seed(seed)
    lengths = WindowSettings(window_seconds=window_seconds, overlap_seconds=overlap_seconds)
    request = Request(**given)
    audio = (request.like, request.prompt, request.infill, request.vary)
    inputs = [source for source in audio if isinstance(source, str | os.PathLike)]
    paths = check_generated(out, n, inputs=inputs, stable=stable is not False, overwrite=overwrite)
    loaded = load_generator(model, codec, speaks=request.text is not None, device=device)
    prepared, spec = request.prepare(*loaded), loaded.codec.spec
    rate, results = spec.sample_rate, []
    for path, number in zip(paths, range(seed, seed + n), strict=True):
        made = prepared.generate(
            settings or SamplingSettings(),
            Windows.of(lengths, spec),
            seed=number,
            stable=stable,
            progress=progress,
        )
        n_clipped = write_audio(path, made.waveform, rate)
        kept = None if made.reached is None else made.reached.kept.item()
        size = made.waveform.shape[-1]
        results.append(GeneratedFile(path, number, size, rate, made.seconds, n_clipped, kept))
    return GeneratedFiles(spec.name, results)
