"""Load the codec that a token dataset or a model names in its files."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from tokgen.codec.base import Codec
from tokgen.codec.spec import CodecSpec
from tokgen.zoo.lookup import as_codec, load_codec
from tokgen.zoo.names import find_in_zoo

__all__ = ["codec_of"]

_PART = r"[A-Za-z0-9][\w-]*(?:\.[\w-]+)*"  # has no ".."
_IN_SUBFOLDER = re.compile(rf"({_PART}/{_PART})/({_PART}(?:/{_PART})*)(:[0-9.]+)?", re.ASCII)


def codec_of(
    spec: CodecSpec, codec: str | Path | Codec | None, *, device: str | torch.device = "auto"
) -> Codec:
    """Return the codec that the caller gives, or the one that a file names.

    A name from a file is looked up in the zoo, or on the hub if it came from there. It is never
    used as a path. The caller compares the weights.

    Args:
        spec: the spec in the file.
        codec: a codec or its name as in `load_codec`; None loads the one that `spec` names.
        device: device to load a codec on that is given by name.
    Raises:
        FileNotFoundError: the codec that `spec` names is neither in the zoo nor from the hub.
    """
    if codec is not None:
        return as_codec(codec, device=device)
    if find_in_zoo(spec.name) is not None:
        return as_codec(spec.name, device=device)
    if spec.revision is None or Path(spec.name).exists():
        raise FileNotFoundError(
            f"codec {spec.name!r} is not in the zoo: pass its folder or hub id as `codec`"
        )
    found = _IN_SUBFOLDER.fullmatch(spec.name)
    if found is None:
        return load_codec(spec.name, revision=spec.revision, device=device)
    name, subfolder, kbps = found.groups("")
    return load_codec(name + kbps, revision=spec.revision, subfolder=subfolder, device=device)
