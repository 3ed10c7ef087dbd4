"""Compress audio files to .tgc files, and decompress them.

compress_file("speech.wav", "speech-16k", "speech.tgc")
decompress_file("speech.tgc", "decoded.wav")
describe_file("speech.tgc")  # codec, entropy model, length, bytes and damage, without decoding
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tokgen.audio.files import AudioWriter, open_blocks
from tokgen.audio.sources import AudioError, Source, display_name
from tokgen.bitstream.compressed import BLOCK_SECONDS, CompressedReader, CompressedWriter
from tokgen.bitstream.entropy_models import AUTO
from tokgen.bitstream.outputs import AUDIO, TGC
from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.codec.base import Codec
from tokgen.codec.long_audio import BAR_DELAY
from tokgen.results import Grid, Result
from tokgen.runs.checks import check_writable
from tokgen.runs.progress import progress_bar
from tokgen.zoo.lookup import as_codec

__all__ = ["CompressedFile", "DecompressedFile", "compress_file", "decompress_file"]


@dataclass(frozen=True)
class CompressedFile(Result):
    """Facts about a file that was compressed.

    Attributes:
        path: the .tgc file.
        codec: name of the codec.
        mode: how codes became bits, one of `tokgen.bitstream.tgc.entropy.MODES`.
        n_bytes: size.
        n_samples: length in samples.
        sample_rate: sample rate in Hz.
    """

    path: Path
    codec: str
    mode: str
    n_bytes: int
    n_samples: int
    sample_rate: int

    def parts(self) -> list[Grid | str]:
        seconds = self.n_samples / self.sample_rate
        return [
            f"{self.path}: {seconds:.2f} s, {self.n_bytes} bytes, "
            f"{8 * self.n_bytes / seconds / 1000:.2f} kbps, {self.mode}"
        ]

    def records(self) -> list[dict[str, Any]]:
        return [self.to_dict()]

    def to_dict(self) -> dict[str, Any]:
        seconds = self.n_samples / self.sample_rate
        more = {"seconds": seconds, "kbps": 8 * self.n_bytes / seconds / 1000}
        return vars(self) | {"path": str(self.path)} | more


@dataclass(frozen=True)
class DecompressedFile(Result):
    """Facts about a file that was decompressed.

    Attributes:
        path: the audio file.
        codec: name of the codec.
        n_samples: length in samples.
        sample_rate: sample rate in Hz.
        n_clipped: samples outside [-1, 1], which were clipped.
        problems: what was damaged, and is silent.
    """

    path: Path
    codec: str
    n_samples: int
    sample_rate: int
    n_clipped: int
    problems: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 1 if the file was damaged."""
        return int(bool(self.problems))

    def parts(self) -> list[Grid | str]:
        seconds = self.n_samples / self.sample_rate
        return [f"{self.path}: {seconds:.2f} s", *(f"  damaged: {p}" for p in self.problems)]

    def records(self) -> list[dict[str, Any]]:
        return [self.to_dict() | {"problems": "; ".join(self.problems)}]

    def to_dict(self) -> dict[str, Any]:
        seconds = self.n_samples / self.sample_rate
        return vars(self) | {"path": str(self.path), "seconds": seconds}


def compress_file(
    file: Source,
    codec: str | Path | Codec,
    out: str | Path,
    *,
    n_codebooks: int | None = None,
    bitrate: float | None = None,
    beam: int = 1,
    entropy: str | Path | EntropyModel = AUTO,
    block_seconds: float = BLOCK_SECONDS,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
    name: str | None = None,
) -> CompressedFile:
    """Compress an audio file of any format, rate and length. Its channels are averaged.

    Args:
        file: path of the audio, its bytes, or an open, seekable binary file.
        codec: the codec, or its name as in `load_codec`.
        out: .tgc file to write, completely or not at all.
        n_codebooks, bitrate, entropy, block_seconds: as for `CompressedWriter`.
        beam: paths of a beam search, as in `Codec.with_beam`. 1 leaves the codec as it is.
        device: device to load a codec on that is given by name.
        progress: show a progress bar if it takes long.
        overwrite: replace an existing `out`.
        name: name of the audio for messages.
    Raises:
        AudioError: the audio file cannot be read.
        FileExistsError: `out` exists, and `overwrite` is False.
        FileNotFoundError: no such codec.
        OSError: `out` cannot be written.
        ValueError: `out` is the input or has another suffix, or as `CompressedWriter`.
    """
    inputs = [file] if isinstance(file, str | Path) else []
    if inputs and not Path(inputs[0]).exists():
        raise AudioError(display_name(file) if name is None else name, "no such file")
    check_writable(out, overwrite=overwrite, inputs=inputs, suffixes=[TGC])
    codec = as_codec(codec, device=device)
    codec = codec if beam == 1 else codec.with_beam(beam)
    writer = CompressedWriter(
        out,
        codec,
        n_codebooks=n_codebooks,
        bitrate=bitrate,
        entropy=entropy,
        block_seconds=block_seconds,
    )
    rate = codec.spec.sample_rate
    with open_blocks(file, sample_rate=rate, name=name) as blocks:
        total = None if blocks.seconds is None else round(blocks.seconds, 1)
        bar = progress_bar("audio", total=total, unit="s", delay=BAR_DELAY, show=progress)
        with bar, writer:
            for block in blocks:
                writer.push(block)
                bar.update(block.shape[-1] / rate)
    found = writer.mode, writer.n_bytes, writer.n_samples
    return CompressedFile(Path(out), codec.spec.name, *found, rate)


def decompress_file(
    file: str | Path,
    out: str | Path,
    codec: str | Path | Codec | None = None,
    *,
    model: EntropyModel | None = None,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
    name: str | None = None,
) -> DecompressedFile:
    """Decompress a .tgc file to an audio file. Damaged blocks become silence.

    Args:
        file: the .tgc file.
        out: .wav, .flac, .mp3, .opus or .m4a file to write, completely or not at all.
        codec: the codec that made the codes, or its name as in `load_codec`; None is the zoo's
            codec that the file names.
        model: as for `CompressedReader`.
        device: device to load a codec on that is given by name.
        progress: show a progress bar if it takes long.
        overwrite: replace an existing `out`.
        name: name of the file for messages.
    Raises:
        FileExistsError: `out` exists, and `overwrite` is False.
        FileNotFoundError: no such file or codec.
        OSError: `out` cannot be written.
        ValueError: not a .tgc file, or one of another codec; `out` is the input or has another
            suffix.
    """
    check_writable(out, overwrite=overwrite, inputs=[file], suffixes=AUDIO)
    reader = CompressedReader(file, codec, model=model, device=device, name=name)
    pieces = iter(reader)
    first = next(pieces, None)
    if first is None:
        raise ValueError(f"{name or file}: no audio in it is readable")
    rate = reader.headers[0].sample_rate
    bar = progress_bar("audio", unit="s", delay=BAR_DELAY, show=progress)
    with AudioWriter(out, rate) as writer, bar:
        piece: torch.Tensor | None = first
        while piece is not None:
            writer.write(piece[0].mean(0, keepdim=True))
            bar.update(piece.shape[-1] / rate)
            piece = next(pieces, None)
    name_of_codec = reader.headers[0].codec
    return DecompressedFile(
        Path(out), name_of_codec, reader.n_samples, rate, writer.clipped, reader.problems
    )
