"""Codecs for files: those that the caller gives, and those that files name."""

from __future__ import annotations

from pathlib import Path

import torch

from tokgen.codec.base import Codec
from tokgen.zoo.lookup import as_codec
from tokgen.zoo.names import find_in_zoo

__all__ = ["NamedCodecs", "as_named", "codec_with_beam"]


class NamedCodecs:
    """The codec that the caller gives, or the zoo's codecs that files name, each loaded once.

    Args:
        given: a codec, or its name as in `load_codec`; None is the zoo's codec that a file names.
        device: device to load codecs on that are given by name.
    """

    def __init__(
        self, given: str | Path | Codec | None = None, device: str | torch.device = "auto"
    ) -> None:
        self._given = None if given is None else as_codec(given, device=device)
        self.device = device if self._given is None else self._given.device
        self._loaded: dict[str, Codec] = {}

    def find(self, name: str, file: str | Path = "") -> Codec:
        """Return the codec for a file that names one. The caller compares the weights.

        Args:
            name: name of the codec in the file.
            file: the file, for messages.
        Raises:
            ValueError: the zoo has no codec of this name.
        """
        if self._given is not None:
            return self._given
        if name not in self._loaded:
            if find_in_zoo(name) is None:
                raise ValueError(
                    f"{file}{': ' if file else ''}made by codec {name!r}, which is not in the zoo: "
                    "name its folder or hub id with --codec"
                )
            self._loaded[name] = as_codec(name, device=self.device)
        return self._loaded[name]


def as_named(
    codec: str | Path | Codec | NamedCodecs | None, device: str | torch.device = "auto"
) -> NamedCodecs:
    """Return codecs that are given as such, or as for `NamedCodecs`."""
    return codec if isinstance(codec, NamedCodecs) else NamedCodecs(codec, device)


def codec_with_beam(
    codec: str | Path | Codec,
    beam: int | None,
    device: str | torch.device = "auto",
    *,
    level: float | None = None,
    bitrate: float | None = None,
) -> Codec:
    """Return a codec that is given as for `as_codec`, as the caller wants it to encode.

    Args:
        beam: paths of a beam search; None leaves the codec as it is.
        level, bitrate: as in `Codec.with_rate`; None leaves the codec as it is.
    """
    codec = as_codec(codec, device=device)
    if level is not None or bitrate is not None:
        codec = codec.with_rate(level=level, bitrate=bitrate)
    return codec if beam is None else codec.with_beam(beam)
