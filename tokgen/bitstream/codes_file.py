"""Write and read the codes of one utterance, the safetensors file of `tokgen encode`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tokgen.codec.spec import CodecSpec, Side
from tokgen.results import Grid, Result
from tokgen.storage import write_file

__all__ = ["CodesFile", "read_codes", "write_codes"]

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
    """

    codes: Tensor
    n_samples: int
    sample_rate: int
    codec: str
    weight_hash: str
    side: Mapping[str, Tensor] = field(default_factory=dict)
    path: Path | None = None

    def __repr__(self) -> str:
        return f"CodesFile({self.table()}; {self.codec})"

    def parts(self) -> list[Grid | str]:
        levels, frames = self.codes.shape
        seconds = self.n_samples / self.sample_rate
        return [f"{self.path or 'codes'}: {levels} levels x {frames} frames, {seconds:.2f} s"]

    def records(self) -> list[dict[str, Any]]:
        return [{k: v for k, v in self.to_dict().items() if k != "side_names"}]

    def to_dict(self) -> dict[str, Any]:
        """Return what describes the codes, without the codes."""
        return {
            "path": None if self.path is None else str(self.path),
            "codec": self.codec,
            "weight_hash": self.weight_hash,
            "n_codebooks": self.codes.shape[0],
            "n_frames": self.codes.shape[1],
            "n_samples": self.n_samples,
            "sample_rate": self.sample_rate,
            "seconds": self.n_samples / self.sample_rate,
            "side_names": sorted(self.side),
        }

    def check_codec(self, spec: CodecSpec) -> None:
        """Raise a ValueError that names both codecs if another codec made the codes."""
        if self.weight_hash != spec.weight_hash:
            raise ValueError(
                f"the codes were made by codec {self.codec!r} (weights {self.weight_hash[:12]}), "
                f"not by {spec.name!r} (weights {spec.weight_hash[:12]}): use {self.codec!r}"
            )


def write_codes(
    path: str | Path, codes: Tensor, n_samples: int, spec: CodecSpec, side: Side | None = None
) -> None:
    """Write a codes file. Codes are stored as uint16, or int32 if codebook_size is above 65536.

    Args:
        path: file to write or replace, completely or not at all; missing folders are created.
        codes: int64 [K, T].
        n_samples: length of the audio in samples.
        spec: spec of the codec that made the codes.
        side: side information [S] by name, if the codec needs it to decode.
    Raises:
        OSError: the file cannot be written.
        ValueError: codes of another shape than [K, spec.n_frames(n_samples)].
    """
    path = Path(path)
    if codes.ndim != 2 or spec.n_frames(n_samples) != codes.shape[1]:
        raise ValueError(
            f"codes of shape {tuple(codes.shape)} for {n_samples} samples: "
            f"expected [K, {spec.n_frames(n_samples)}]"
        )
    dtype = torch.uint16 if spec.codebook_size <= 1 << 16 else torch.int32
    metadata = {
        "kind": _KIND,
        "codec": spec.name,
        "weight_hash": spec.weight_hash,
        "n_samples": str(n_samples),
        "sample_rate": str(spec.sample_rate),
    }
    tensors = {"codes": codes.to("cpu", dtype).contiguous()}
    for name, values in (side or {}).items():
        tensors[_SIDE + name] = values.to("cpu", torch.float32).contiguous()
    write_file(path, save(tensors, metadata))


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
    try:
        with safe_open(str(path), framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("kind") != _KIND:
                raise ValueError(f"{label} is not a codes file; make one with `tokgen encode`")
            codes = file.get_tensor("codes")
            side = {
                key.removeprefix(_SIDE): file.get_tensor(key)
                for key in file.keys()  # noqa: SIM118 - safe_open is not iterable
                if key.startswith(_SIDE)
            }
            found = CodesFile(
                codes.long(),
                n_samples=int(metadata["n_samples"]),
                sample_rate=int(metadata["sample_rate"]),
                codec=metadata["codec"],
                weight_hash=metadata["weight_hash"],
                side=side,
                path=path,
            )
    except (SafetensorError, KeyError) as error:
        raise ValueError(f"{label} is not a codes file, or damaged: {error}") from error
    if codes.ndim != 2 or codes.dtype not in (torch.uint16, torch.int32) or codes.numel() == 0:
        raise ValueError(
            f"{label} holds codes of shape {tuple(codes.shape)} {codes.dtype}: "
            "expected [K, T] uint16 or int32"
        )
    for name, values in side.items():
        if values.ndim != 1 or values.dtype != torch.float32 or not values.isfinite().all():
            raise ValueError(
                f"{label} holds side information {name!r} of shape {tuple(values.shape)} "
                f"{values.dtype}: expected [S] float32 without NaN"
            )
    return found
