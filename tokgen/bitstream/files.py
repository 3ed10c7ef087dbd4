"""Encode an audio file, and decode it again.

encoded = encode_file("speech.wav", "speech-16k", "speech.safetensors")
encoded.codes  # [K, T]
decode_file("speech.safetensors", "decoded.wav")
decode_file("speech.safetensors", "stable.wav", stable=True).kept  # share of codes that come back
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tokgen.audio.encoders import BITRATES
from tokgen.audio.sources import AudioError, Source, display_name
from tokgen.bitstream.codes_file import CodesFile, kbps_of, read_codes, write_codes
from tokgen.bitstream.named_codecs import NamedCodecs, as_named, codec_with_beam
from tokgen.bitstream.outputs import AUDIO, CODES
from tokgen.codec.aligned import GridChoice, leads_in
from tokgen.codec.base import Codec
from tokgen.codec.long_audio import decode_audio_file, encode_audio_file
from tokgen.codec.stable.decoding import check_searchable
from tokgen.codec.stable.settings import StableDecoding
from tokgen.results import Grid, Result
from tokgen.runs.checks import check_writable

__all__ = ["DecodedFile", "check_files", "decode_file", "encode_file", "settings_for"]


@dataclass(frozen=True)
class DecodedFile(Result):
    """Facts about a decoded or decompressed audio file.

    Attributes:
        path: the audio file.
        codec: name of the codec that decoded it.
        n_samples: length in samples.
        sample_rate: sample rate in Hz.
        n_clipped: samples outside [-1, 1], which were clipped.
        problems: what was damaged in a .tgc file, and is silent.
        kept: share of codes that come back when the file is encoded; None for plain decoding, as
            are the next ones.
        steps: steps of the search, averaged over frames.
        snr_db: level of the plainly decoded audio over that of the change in dB.
        survived: share of codes that come back after each transport.
    """

    path: Path
    codec: str
    n_samples: int
    sample_rate: int
    n_clipped: int
    problems: Sequence[str] = ()
    kept: float | None = None
    steps: float | None = None
    snr_db: float | None = None
    survived: Mapping[str, float] = field(default_factory=dict)

    @property
    def exit_code(self) -> int:
        """Exit code of the command: 1 if the file was damaged."""
        return int(bool(self.problems))

    def parts(self) -> list[Grid | str]:
        line = f"{self.path}: {self.n_samples / self.sample_rate:.2f} s"
        if self.kept is None:
            return [line, *(f"  damaged: {problem}" for problem in self.problems)]
        after = "".join(f", {100 * x:.2f} % after {name}" for name, x in self.survived.items())
        return [
            line,
            f"  {100 * self.kept:.2f} % of codes come back{after}",
            f"  {self.steps:.1f} steps, change {self.snr_db:.1f} dB below the audio",
        ]

    def records(self) -> list[dict[str, Any]]:
        found = self.to_dict() | {"problems": "; ".join(self.problems)}
        return [found | {f"kept_{k}": v for k, v in found.pop("survived", {}).items()}]

    def to_dict(self) -> dict[str, Any]:
        found = vars(self) | {"path": str(self.path), "seconds": self.n_samples / self.sample_rate}
        found["problems"] = list(self.problems)
        if self.kept is None:
            for name in ("kept", "steps", "snr_db", "survived"):
                del found[name]
        return found


def encode_file(
    file: Source,
    codec: str | Path | Codec,
    out: str | Path | None = None,
    *,
    n_codebooks: int | None = None,
    beam: int | None = None,
    level: float | None = None,
    bitrate: float | None = None,
    grid: GridChoice = None,
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
        beam: paths of a beam search, as in `Codec.with_beam`. None leaves the codec as it is.
        level, bitrate: the rate of a codec of variable bitrate, as in `Codec.encode`.
        grid: where frames begin, as in `Codec.encode`; "auto" searches the first 30 s.
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
    check_files(file, out, CODES, overwrite=overwrite, name=name)
    codec = codec_with_beam(codec, beam, device, level=level, bitrate=bitrate)
    encoded, n_samples, channels = encode_audio_file(
        codec, file, n_codebooks, grid=grid, name=name, progress=progress
    )
    codes, side = encoded.codes[0].cpu(), {name: v[0].cpu() for name, v in encoded.side.items()}
    spec = codec.spec
    beam = 1 if codec.search is None else codec.search.beam
    about = spec.sample_rate, spec.name, spec.weight_hash
    more: Any = {"beam": beam, "channels": channels, "kbps": kbps_of(side, spec)}
    more["encoder_hash"] = spec.encoder_hash
    found = CodesFile(codes, n_samples, *about, side, **more)
    if out is None:
        return found
    write_codes(out, codes, n_samples, spec, side, beam=beam, channels=channels)
    return replace(found, path=Path(out))


def decode_file(
    file: str | Path | CodesFile,
    out: str | Path,
    codec: str | Path | Codec | NamedCodecs | None = None,
    *,
    stable: bool | StableDecoding = False,
    device: str | torch.device = "auto",
    progress: bool = True,
    overwrite: bool = False,
    name: str | None = None,
) -> DecodedFile:
    """Decode codes to an audio file, with the channels of the audio that was encoded.

    Args:
        file: what `encode_file` returned or wrote.
        out: .wav, .flac, .mp3, .opus or .m4a file to write, completely or not at all.
        codec: the codec that made the codes, or its name as in `load_codec`; None is the zoo's
            codec that the file names.
        stable: decode so that encoding the file gives the same codes again, see `Codec.decode`.
            What the file's format does to audio is added to the transports (see `settings_for`).
        device: device to load a codec on that is given by name.
        progress: show a progress bar if it takes long.
        overwrite: replace an existing `out`.
        name: name of the codes file for messages.
    Raises:
        FileExistsError: `out` exists, and `overwrite` is False.
        FileNotFoundError: no such file or codec.
        OSError: `out` cannot be written.
        ValueError: the file is damaged, another codec made the codes, `out` is the input or has
            another suffix, or the codec cannot decode stably.
    """
    inputs = [] if isinstance(file, CodesFile) else [file]
    check_writable(out, overwrite=overwrite, inputs=inputs, suffixes=AUDIO)
    found = file if isinstance(file, CodesFile) else read_codes(file, name=name)
    codec = as_named(codec, device).find(found.codec, name or found.path or "the codes")
    found.check_codec(codec.spec)
    side = {name: values[None] for name, values in found.side.items()}
    if stable is not False:
        check_searchable(codec)
        stable = settings_for(Path(out).suffix, StableDecoding() if stable is True else stable)
    codes, n_samples = found.codes[None], found.n_samples
    n_clipped, reached = decode_audio_file(
        codec,
        codes,
        n_samples,
        out,
        side,
        channels=found.channels,
        stable=stable,
        progress=progress,
    )
    done = DecodedFile(Path(out), codec.spec.name, n_samples, codec.spec.sample_rate, n_clipped)
    if reached is None:
        return done
    kept = reached.kept.item()
    if Path(out).suffix[1:].lower() in BITRATES:
        kept = _kept(codec, out, codes, leads_in(side, 1, codec.spec)[0])
    return replace(
        done,
        kept=kept,
        steps=reached.steps.item(),
        snr_db=reached.snr_db.item(),
        survived={name: share.item() for name, share in reached.survived.items()},
    )


def check_files(
    file: Source, out: str | Path | None, suffix: str, *, overwrite: bool, name: str | None
) -> None:
    """Check that an audio file exists, and that what is made of it can be written.

    Args:
        file, out, overwrite, name: as for `encode_file`.
        suffix: suffix of `out`.
    Raises:
        AudioError: no such file.
        ValueError, OSError: as `check_writable`.
    """
    inputs = [file] if isinstance(file, str | Path) else []
    if inputs and not Path(inputs[0]).exists():
        raise AudioError(display_name(file) if name is None else name, "no such file")
    if out is not None:
        check_writable(out, overwrite=overwrite, inputs=inputs, suffixes=[suffix])


def settings_for(suffix: str, settings: StableDecoding) -> StableDecoding:
    """Add what a file's format does to audio to the transports that the codes survive.

    .wav and .flac round to 16 bits, .mp3 and .opus encode at the bitrate of the file. .m4a has no
    transport, and warns.
    """
    kind, have = suffix[1:].lower(), settings.robust_to
    if kind == "m4a":
        warnings.warn(
            "m4a is no transport of stable decoding, so its encoder changes codes: write .wav, "
            ".flac, .mp3 or .opus to keep them",
            stacklevel=3,
        )
        return settings
    added = f"{kind}:{BITRATES[kind]:g}" if kind in BITRATES else "int16"
    if added in have or (added == "int16" and "dither" in have):
        return settings
    return replace(settings, robust_to=(*have, added))


def _kept(codec: Codec, file: str | Path, codes: Tensor, lead: int) -> float:
    """Return the share of codes [1, k, T] that come back from a file."""
    grid = -lead % codec.spec.hop_length if lead else None
    again = encode_audio_file(codec, file, codes.shape[1], grid=grid, progress=False).encoded
    n = min(again.codes.shape[-1], codes.shape[-1])
    same = again.codes[..., :n].cpu() == codes[..., :n].cpu()
    return int(same.sum()) / codes.numel()
