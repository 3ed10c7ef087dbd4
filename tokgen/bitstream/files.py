"""Encode an audio file, and decode it again.

encoded = encode_file("speech.wav", "speech-16k", "speech.safetensors")
encoded.codes  # [K, T]
decode_file("speech.safetensors", "decoded.wav")
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from tokgen.audio.sources import AudioError, Source, display_name
from tokgen.bitstream.codes_file import CodesFile, read_codes, write_codes
from tokgen.bitstream.outputs import AUDIO, CODES
from tokgen.codec.base import Codec
from tokgen.codec.long_audio import decode_audio_file, encode_audio_file
from tokgen.results import Grid, Result
from tokgen.runs.checks import check_writable
from tokgen.zoo.lookup import as_codec
from tokgen.zoo.names import find_in_zoo

__all__ = ["DecodedFile", "decode_file", "encode_file", "named_codec"]


@dataclass(frozen=True)
class DecodedFile(Result):
    """Facts about a decoded audio file.

    Attributes:
        path: the audio file.
        codec: name of the codec that decoded it.
        n_samples: length in samples.
        sample_rate: sample rate in Hz.
        n_clipped: samples outside [-1, 1], which were clipped.
    """

    path: Path
    codec: str
    n_samples: int
    sample_rate: int
    n_clipped: int

    def parts(self) -> list[Grid | str]:
        return [f"{self.path}: {self.n_samples / self.sample_rate:.2f} s"]

    def records(self) -> list[dict[str, Any]]:
        return [self.to_dict()]

    def to_dict(self) -> dict[str, Any]:
        seconds = self.n_samples / self.sample_rate
        return vars(self) | {"path": str(self.path), "seconds": seconds}


def encode_file(
    file: Source,
    codec: str | Path | Codec,
    out: str | Path | None = None,
    *,
    n_codebooks: int | None = None,
    beam: int = 1,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
    name: str | None = None,
) -> CodesFile:
    """Encode an audio file of any format, rate and length.

    Args:
        file: path of the audio, its bytes, or an open, seekable binary file.
        codec: the codec, or its name as in `load_codec`.
        out: .safetensors file to write, completely or not at all; None writes none.
        n_codebooks: levels to keep; None keeps all.
        beam: paths of a beam search, as in `Codec.with_beam`. 1 leaves the codec as it is.
        device: device to load a codec on that is given by name.
        progress: show a progress bar if it takes long.
        overwrite: replace an existing `out`.
        name: name of the audio for messages.
    Returns:
        the codes [K, T] and all that is needed to decode them, as `read_codes` reads them.
    Raises:
        AudioError: the audio file cannot be read.
        FileExistsError: `out` exists, and `overwrite` is False.
        FileNotFoundError: no such codec.
        OSError: `out` cannot be written.
        ValueError: `out` is the input or has another suffix, or as `Codec.encode`.
    """
    inputs = [file] if isinstance(file, str | Path) else []
    if inputs and not Path(inputs[0]).exists():
        raise AudioError(display_name(file) if name is None else name, "no such file")
    if out is not None:
        check_writable(out, overwrite=overwrite, inputs=inputs, suffixes=[CODES])
    codec = as_codec(codec, device=device)
    codec = codec if beam == 1 else codec.with_beam(beam)
    encoded, n_samples = encode_audio_file(codec, file, n_codebooks, name=name, progress=progress)
    codes, side = encoded.codes[0].cpu(), {name: v[0].cpu() for name, v in encoded.side.items()}
    spec = codec.spec
    beam = 1 if codec.search is None else codec.search.beam
    about = spec.sample_rate, spec.name, spec.weight_hash
    found = CodesFile(codes, n_samples, *about, side, beam=beam)
    if out is None:
        return found
    write_codes(out, codes, n_samples, spec, side, beam=beam)
    return replace(found, path=Path(out))


def decode_file(
    file: str | Path | CodesFile,
    out: str | Path,
    codec: str | Path | Codec | None = None,
    *,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
    name: str | None = None,
) -> DecodedFile:
    """Decode codes to an audio file.

    Args:
        file: what `encode_file` returned or wrote.
        out: .wav, .flac, .mp3, .opus or .m4a file to write, completely or not at all.
        codec: the codec that made the codes, or its name as in `load_codec`; None is the zoo's
            codec that the file names.
        device: device to load a codec on that is given by name.
        progress: show a progress bar if it takes long.
        overwrite: replace an existing `out`.
        name: name of the codes file for messages.
    Raises:
        FileExistsError: `out` exists, and `overwrite` is False.
        FileNotFoundError: no such file or codec.
        OSError: `out` cannot be written.
        ValueError: the file is damaged, another codec made the codes, or `out` is the input or has
            another suffix.
    """
    inputs = [] if isinstance(file, CodesFile) else [file]
    check_writable(out, overwrite=overwrite, inputs=inputs, suffixes=AUDIO)
    found = file if isinstance(file, CodesFile) else read_codes(file, name=name)
    codec = named_codec(found, device) if codec is None else as_codec(codec, device=device)
    found.check_codec(codec.spec)
    side = {name: values[None] for name, values in found.side.items()}
    n_clipped = decode_audio_file(
        codec, found.codes[None], found.n_samples, out, side, progress=progress
    )
    return DecodedFile(
        Path(out), codec.spec.name, found.n_samples, codec.spec.sample_rate, n_clipped
    )


def named_codec(codes: CodesFile, device: str | torch.device = "auto") -> Codec:
    """Load the zoo's codec that a codes file names.

    Raises:
        ValueError: the zoo has no codec of this name.
    """
    if find_in_zoo(codes.codec) is None:
        raise ValueError(
            f"{codes.path or 'the codes'} was made by codec {codes.codec!r}, which is not in the "
            "zoo: name its folder or hub id with --codec"
        )
    return as_codec(codes.codec, device=device)
