"""Write and read the codes of one utterance, the safetensors file of `tokgen encode`.

Tensors: `codes` [K, T], `depth` uint8 [T] if the codes have a variable bitrate, and a
`side.NAME` float32 [S] for each other kind of side information.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tokgen.bitstream.tgc.layout import MAGIC
from tokgen.codec.aligned import leads_in
from tokgen.codec.depth import mean_kbps
from tokgen.codec.identity import encodes_like, show_hashes
from tokgen.codec.spec import DEPTH, MAX_BEAM, MAX_SAMPLE_RATE, CodecSpec, Side
from tokgen.nn.files import brief, read_tensors
from tokgen.results import Grid, Result
from tokgen.storage import write_file

__all__ = ["MAX_CODES", "CodesFile", "kbps_of", "read_codes", "write_codes"]

MAX_CODES = 1 << 28  # a week of speech
_MAX_HOP = 1 << 20  # samples per frame
_MAX_TEXT = 500  # characters of names
_KIND = "tokgen codes 1"
_SIDE = "side."  # prefix of the tensor names of side information


@dataclass(frozen=True, repr=False)
class CodesFile(Result):
    """Codes of an audio file, and all that is needed to decode them.

    Attributes:
        codes: int64 [K, T].
        n_samples: length of the audio in samples.
        sample_rate: sample rate in Hz.
        codec: name of the codec that made the codes.
        weight_hash: SHA-256 (hex) of the codec's weights.
        side: side information float32 [S] by name; empty for most codecs.
        path: the .safetensors file; None if there is none.
        beam: paths of the beam search that chose the codes; 1 is greedy.
        channels: channels of the audio: 1, or those of the codec.
        kbps: bitrate of codes of variable depth, with that of the depth; None for other codes.
        encoder_hash: hash of encoder and quantizer, as in `CodecSpec`; "" in older files.
    """

    codes: Tensor
    n_samples: int
    sample_rate: int
    codec: str
    weight_hash: str
    side: Mapping[str, Tensor] = field(default_factory=dict)
    path: Path | None = None
    beam: int = 1
    channels: int = 1
    kbps: float | None = None
    encoder_hash: str = ""

    @property
    def depth(self) -> Tensor | None:
        """The levels of each frame, int64 [T]; None if all frames have all levels."""
        return self.side[DEPTH].long() if DEPTH in self.side else None

    def __repr__(self) -> str:
        return f"CodesFile({self.table()}; {self.codec})"

    def parts(self) -> list[Grid | str]:
        levels, frames = self.codes.shape
        seconds = self.n_samples / self.sample_rate
        mean, rate = "", ""
        if self.depth is not None:
            mean = f"{self.depth.double().mean():.2f} of "
        if self.kbps is not None:
            rate = f", {self.kbps:.2f} kbps"
        line = f"{mean}{levels} levels x {frames} frames, {seconds:.2f} s{rate}"
        return [f"{self.path or 'codes'}: {line}"]

    def records(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in self.to_dict().items() if k != "side_names"}]

    def to_dict(self) -> dict[str, Any]:
        """Return what describes the codes, without the codes."""
        found = {
            "path": None if self.path is None else str(self.path),
            "codec": self.codec,
            "weight_hash": self.weight_hash,
            "encoder_hash": self.encoder_hash or self.weight_hash,
            "beam": self.beam,
            "n_codebooks": self.codes.shape[0],
            "n_frames": self.codes.shape[1],
            "n_samples": self.n_samples,
            "sample_rate": self.sample_rate,
            "channels": self.channels,
            "seconds": self.n_samples / self.sample_rate,
            "side_names": sorted(self.side),
        }
        if self.depth is not None:
            found |= {"mean_depth": self.depth.double().mean().item(), "kbps": self.kbps}
        return found

    def check_codec(self, spec: CodecSpec) -> None:
        """Check that a codec made the codes, or one of which only the decoder differs.

        Raises:
            ValueError: another codec made them, or their numbers are not those of the codec.
        """
        where = self.path or "the codes"
        if not encodes_like(self, spec):
            ours, other = show_hashes(self, spec)
            raise ValueError(
                f"{where}: made by codec {self.codec!r} ({ours}), not by {spec.name!r} ({other}): "
                f"use {self.codec!r}"
            )
        levels, frames = self.codes.shape
        lead = leads_in(self.side, 1, spec)[0]
        most = 1 if self.channels == 1 else spec.channels
        high, wanted = int(self.codes.max()), spec.n_frames(self.n_samples + lead)
        for what, found, right, limit in (
            ("levels", levels, levels <= spec.n_codebooks, f"at most {spec.n_codebooks}"),
            ("the code", high, high < spec.codebook_size, f"codes below {spec.codebook_size}"),
            ("frames", frames, frames == wanted, f"{wanted} for {self.n_samples} samples"),
            ("Hz", self.sample_rate, self.sample_rate == spec.sample_rate, f"{spec.sample_rate}"),
            ("channels", self.channels, self.channels == most, f"{spec.channels}"),
        ):
            if not right:
                raise ValueError(
                    f"{where}: {what} {found}, but {spec.name!r} has {limit}: "
                    "encode the audio again"
                )


def write_codes(
    path: str | Path,
    codes: Tensor,
    n_samples: int,
    spec: CodecSpec,
    side: Side | None = None,
    *,
    beam: int = 1,
    channels: int = 1,
) -> None:
    """Write a codes file. Codes are stored as uint16, or int32 if codebook_size is above 65536.

    Args:
        path: file to write or replace, completely or not at all; missing folders are created.
        codes: int64 [K, T].
        n_samples: length of the audio in samples.
        spec: spec of the codec that made the codes.
        side: side information [S] by name, if the codec needs it to decode.
        beam: paths of the beam search that chose the codes; 1 is greedy.
        channels: channels of the audio: 1, or those of the codec.
    Raises:
        OSError: the file cannot be written.
        ValueError: codes of another shape than [K, spec.n_frames(n_samples)], or a depth that is
            not theirs.
    """
    path, n_frames = Path(path), spec.n_frames(n_samples + leads_in(side, 1, spec)[0])
    if codes.ndim != 2 or n_frames != codes.shape[1]:
        raise ValueError(
            f"codes of shape {tuple(codes.shape)} for {n_samples} samples: expected [K, {n_frames}]"
        )
    dtype = torch.uint16 if spec.codebook_size <= 1 << 16 else torch.int32
    metadata = {
        "kind": _KIND,
        "codec": spec.name,
        "weight_hash": spec.weight_hash,
        "n_samples": str(n_samples),
        "sample_rate": str(spec.sample_rate),
    }
    if spec.encoder_hash:
        metadata["encoder_hash"] = spec.encoder_hash
    if beam > 1:
        metadata["beam"] = str(beam)
    if channels > 1:
        metadata["channels"] = str(channels)
    if (kbps := kbps_of(side, spec)) is not None:
        metadata["kbps"] = f"{kbps:.6f}"
    tensors = {"codes": codes.to("cpu", dtype).contiguous()}
    for name, values in (side or {}).items():
        if name == DEPTH:
            checked = _checked_depth(values.cpu(), codes.cpu())
            tensors[DEPTH] = checked.to(_depth_type(spec.n_codebooks)).contiguous()
            continue
        tensors[_SIDE + name] = values.to("cpu", torch.float32).contiguous()
    write_file(path, save(tensors, metadata))


def kbps_of(side: Side | None, spec: CodecSpec) -> float | None:
    """Return the kbps of codes whose side information has a depth [T]; else None."""
    return mean_kbps(side[DEPTH].cpu().long(), spec) if side and DEPTH in side else None


def _depth_type(n_codebooks: int) -> torch.dtype:
    return torch.uint8 if n_codebooks < 1 << 8 else torch.int32


def read_codes(path: str | Path, *, name: str | None = None) -> CodesFile:
    """Read a file that `write_codes` wrote.

    Args:
        name: name of the file for messages.
    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not a codes file, or is damaged.
    """
    path = Path(path)
    label = str(path) if name is None else name
    if not path.exists():
        raise FileNotFoundError(f"no such file: {label}")
    if not path.is_file():
        raise ValueError(f"{label} is not a regular file; pipe it into `tokgen decode -`")
    with path.open("rb") as opened:
        if opened.read(len(MAGIC)) == MAGIC:
            raise ValueError(f"{label} is a .tgc file: use `tokgen decompress`")
    try:
        tensors = read_tensors(path)
    except ValueError as error:
        raise ValueError(f"{label} is not a codes file: it {error}") from error
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
        if metadata.get("kind") != _KIND:
            raise ValueError(f"{label} is not a codes file; make one with `tokgen encode`")
        try:
            _check_tensors(tensors)
            codes = file.get_tensor("codes").long()
            if (low := int(codes.min())) < 0:
                raise ValueError(f"a code is {low}, below 0")
            side = {name: file.get_tensor(_SIDE + name) for name in _side_names(tensors)}
            for kind, values in side.items():
                if not values.isfinite().all():
                    raise ValueError(f"side information {kind!r} holds NaN or infinity")
            if DEPTH in tensors:
                side[DEPTH] = _checked_depth(file.get_tensor(DEPTH), codes)
            return CodesFile(
                codes,
                n_samples=_whole(metadata, "n_samples", codes.shape[1] * _MAX_HOP),
                sample_rate=_whole(metadata, "sample_rate", MAX_SAMPLE_RATE),
                codec=_text(metadata, "codec"),
                weight_hash=_text(metadata, "weight_hash"),
                side=side,
                path=path,
                beam=_whole(metadata, "beam", MAX_BEAM) if "beam" in metadata else 1,
                channels=_whole(metadata, "channels", 255) if "channels" in metadata else 1,
                kbps=_number(metadata, "kbps") if "kbps" in metadata else None,
                encoder_hash=_text(metadata, "encoder_hash") if "encoder_hash" in metadata else "",
            )
        except (SafetensorError, ValueError) as error:
            raise ValueError(f"{label} is damaged: {brief(error)}") from error


def _check_tensors(tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """Raise ValueError if the types or sizes are not those of a codes file."""
    dtype, shape = tensors.get("codes", ("nothing", ()))
    size = math.prod(shape)
    if len(shape) != 2 or dtype not in ("U16", "I32") or not 0 < size <= MAX_CODES:
        raise ValueError(
            f"codes of shape {shape} {dtype}: expected [K, T] U16 or I32, at most {MAX_CODES} codes"
        )
    n_frames = shape[1]
    for name in _side_names(tensors):
        dtype, shape = tensors[_SIDE + name]
        if len(shape) != 1 or dtype != "F32" or shape[0] > size:
            raise ValueError(
                f"side information {name!r} of shape {shape} {dtype}: expected [S] F32, at most "
                f"{size} values"
            )

    dtype, shape = tensors.get(DEPTH, ("U8", (n_frames,)))
    if dtype not in ("U8", "I32") or shape != (n_frames,):
        raise ValueError(f"depth of shape {shape} {dtype}: expected [{n_frames}] U8 or I32")


def _checked_depth(depth: Tensor, codes: Tensor) -> Tensor:
    """Return the depth float32 [T] after a check that it is that of codes [K, T]."""
    if depth.shape != codes.shape[1:]:
        raise ValueError(f"depth of shape {tuple(depth.shape)}: expected {tuple(codes.shape[1:])}")
    low, high = int(depth.min()), int(depth.max())
    if not 1 <= low <= high <= len(codes):
        raise ValueError(f"depth spans {low}..{high}, but must be in 1..{len(codes)}")
    past = torch.arange(len(codes))[:, None] >= depth
    if codes[past].any():
        raise ValueError("codes past the depth of a frame are not 0")
    return depth.float()


def _side_names(tensors: Iterable[str]) -> list[str]:
    return [key.removeprefix(_SIDE) for key in tensors if key.startswith(_SIDE)]


def _whole(metadata: Mapping[str, str], name: str, most: int) -> int:
    """Return an integer 1..`most` of the metadata."""
    text = _text(metadata, name)
    if not re.fullmatch(r"-?[0-9]{1,18}", text) or not 1 <= int(text) <= most:
        raise ValueError(f"{name} is {text[:40]!r}, but must be an integer in 1..{most}")
    return int(text)


def _number(metadata: Mapping[str, str], name: str) -> float:
    """Return a number above 0 of the metadata."""
    text = _text(metadata, name)
    if not re.fullmatch(r"[0-9]{1,9}\.[0-9]{1,9}", text):
        raise ValueError(f"{name} is {text[:40]!r}, but must be a number such as 2.5")
    return float(text)


def _text(metadata: Mapping[str, str], name: str) -> str:
    if name not in metadata:
        raise ValueError(f"its metadata has no {name!r}")
    if len(text := metadata[name]) > _MAX_TEXT:
        raise ValueError(f"{name} has {len(text)} characters, over the limit of {_MAX_TEXT}")
    return text
