"""Compress audio files to .tgc files, and decompress them.

compress_file("speech.wav", "speech-16k", "speech.tgc")
decompress_file("speech.tgc", "decoded.wav")
describe_file("speech.tgc")  # codec, entropy model, length, bytes and damage, without decoding
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import torch

from tokgen.audio.files import AudioWriter, open_blocks
from tokgen.audio.sources import Source
from tokgen.bitstream.codes_file import CodesFile
from tokgen.bitstream.compressed import CompressedReader, CompressedWriter
from tokgen.bitstream.files import DecodedFile, check_files, decode_file
from tokgen.bitstream.named_codecs import NamedCodecs, as_named
from tokgen.bitstream.outputs import AUDIO, TGC
from tokgen.bitstream.settings import Compression
from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.codec.base import Codec
from tokgen.codec.long_audio import audio_bar
from tokgen.codec.stable.settings import StableDecoding
from tokgen.results import Grid, Result
from tokgen.runs.checks import check_writable
from tokgen.zoo.lookup import as_codec

__all__ = ["CompressedFile", "compress_file", "decompress_file"]


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


def compress_file(
    file: Source,
    codec: str | Path | Codec,
    out: str | Path,
    *,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
    name: str | None = None,
    **settings: Unpack[Compression],
) -> CompressedFile:
    """Compress an audio file of any format, rate and length.

    A codec with several channels gets those of the file, or copies of its only one. Other codecs
    get the mean of the channels. Decompressed audio has the channels of the file, or their mean.

    Args:
        file: path of the audio, its bytes, or an open, seekable binary file.
        codec: the codec, or its name as in `load_codec`.
        out: .tgc file to write, completely or not at all.
        device: device to load a codec on that is given by name.
        progress: show a progress bar if it takes long.
        overwrite: replace an existing `out`.
        name: name of the audio for messages.
        **settings: n_codebooks, level, bitrate, beam, entropy and block_seconds of
            `CompressedWriter`.
    Raises:
        AudioError: the audio file cannot be read.
        FileExistsError: `out` exists, and `overwrite` is False.
        FileNotFoundError: no such codec.
        OSError: `out` cannot be written.
        ValueError: `out` is the input or has another suffix, or as `CompressedWriter`.
    """
    check_files(file, out, TGC, overwrite=overwrite, name=name)
    codec = as_codec(codec, device=device)
    rate, channels = codec.spec.sample_rate, codec.spec.channels
    with (
        open_blocks(file, sample_rate=rate, name=name, channels=channels) as blocks,
        audio_bar(blocks.seconds, progress) as bar,
        CompressedWriter(out, codec, channels=blocks.channels, **settings) as writer,
    ):
        for block in blocks:
            writer.push(block)
            bar.update(block.shape[-1] / rate)
    found = writer.mode, writer.n_bytes, writer.n_samples
    return CompressedFile(Path(out), codec.spec.name, *found, rate)


def decompress_file(
    file: str | Path,
    out: str | Path,
    codec: str | Path | Codec | NamedCodecs | None = None,
    *,
    model: EntropyModel | None = None,
    start: float = 0.0,
    seconds: float | None = None,
    stable: bool | StableDecoding = False,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
    name: str | None = None,
) -> DecodedFile:
    """Decompress a .tgc file to an audio file. Damaged blocks become silence.

    Args:
        file: the .tgc file.
        out: .wav, .flac, .mp3, .opus or .m4a file to write, completely or not at all.
        codec: the codec that made the codes, or its name as in `load_codec`; None is the zoo's
            codec that the file names.
        model, start, seconds: as for `CompressedReader`.
        stable: as for `decode_file`; takes whole files without damage, and holds their codes.
        device: device to load a codec on that is given by name.
        progress: show a progress bar if it takes long.
        overwrite: replace an existing `out`.
        name: name of the file for messages.
    Raises:
        FileExistsError: `out` exists, and `overwrite` is False.
        FileNotFoundError: no such file or codec.
        OSError: `out` cannot be written.
        ValueError: not a .tgc file, or one of another codec; `out` is the input or has another
            suffix; or stable decoding of a part, of a damaged file or by a codec that has none.
    """
    check_writable(out, overwrite=overwrite, inputs=[file], suffixes=AUDIO)
    more: dict[str, Any] = {"start": start, "seconds": seconds, "name": name}
    codecs = as_named(codec, device)
    reader = CompressedReader(file, codecs, model=model, device=device, **more)
    if stable is not False:
        if start or seconds is not None:
            raise ValueError(
                "stable with start or seconds: stable decoding takes whole files; leave out both"
            )
        codes = _codes_of(reader, codecs, name or str(file))
        return decode_file(
            codes, out, codecs, stable=stable, progress=progress, overwrite=overwrite
        )
    pieces = iter(reader)
    first = next(pieces, None)
    if first is None:
        raise ValueError(f"{name or file}: no audio in it is readable")
    header, rate = reader.headers[0], reader.headers[0].sample_rate
    with AudioWriter(out, rate) as writer, audio_bar(None, progress) as bar:
        for piece in chain([first], pieces):
            writer.write(piece[0])
            bar.update(piece.shape[-1] / rate)
    found = reader.n_samples, rate, writer.clipped, reader.problems
    return DecodedFile(Path(out), header.codec, *found)


def _codes_of(reader: CompressedReader, codecs: NamedCodecs, name: str) -> CodesFile:
    """Return the codes of a whole file of one stream, which must have all of them."""
    blocks = list(reader.blocks())
    if reader.problems:
        raise ValueError(f"{name}: {reader.problems[0]}; decompress it without stable")
    if len(reader.headers) != 1:
        raise ValueError(
            f"{name}: {len(reader.headers)} streams in one file; decompress it without stable"
        )
    [header] = reader.headers
    spec = codecs.find(header.codec).spec
    side = {name: torch.from_numpy(values) for name, values in header.side.items()}
    for key in header.side_periods:
        side[key] = torch.from_numpy(np.concatenate([block.side[key] for block in blocks]))
    return CodesFile(
        torch.from_numpy(np.concatenate([block.codes for block in blocks], axis=1)),
        reader.n_samples,
        spec.sample_rate,
        spec.name,
        spec.weight_hash,
        side,
        channels=header.channels,
        encoder_hash=spec.encoder_hash,
    )
