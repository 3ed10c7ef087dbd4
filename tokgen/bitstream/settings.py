"""Settings of compression: levels, bitrate, entropy model and length of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.bitstream.tgc.layout import MAX_BLOCK_CODES
from tokgen.codec.base import Codec
from tokgen.codec.checks import check_levels
from tokgen.codec.spec import CodecSpec

__all__ = ["BLOCK_SECONDS", "Compression", "frames_for", "levels_for", "with_levels"]

BLOCK_SECONDS = 10.0  # of a block; a damaged block is lost as a whole
_MAX_BLOCK_FRAMES = 65_535


class Compression(TypedDict, total=False):
    """Settings of `CompressedWriter`, each with its default."""

    n_codebooks: int | None
    level: float | None
    bitrate: float | None
    beam: int | None
    entropy: str | Path | EntropyModel
    block_seconds: float


def with_levels(
    codec: Codec,
    n_codebooks: int | None = None,
    level: float | None = None,
    bitrate: float | None = None,
) -> tuple[Codec, int]:
    """Return a codec that chooses the levels of frames as the settings say, and the most levels.

    Args:
        n_codebooks: most levels; None means all.
        level: as in `Codec.with_rate`, for a codec of variable bitrate.
        bitrate: kbps, in place of `n_codebooks` and `level`: the mean of a codec of variable
            bitrate, as in `Codec.with_rate`, and the most of others.
    Raises:
        ValueError: two of them, or out of range.
    """
    if bitrate is not None and (n_codebooks is not None or level is not None):
        other = f"level = {level:g}" if level is not None else f"n_codebooks = {n_codebooks}"
        raise ValueError(f"bitrate = {bitrate:g} and {other}: give one")
    if bitrate is not None and not codec.variable:
        n_codebooks = levels_for(bitrate, codec.spec)
    elif bitrate is not None or level is not None:
        codec = codec.with_rate(level=level, bitrate=bitrate)
    return codec, check_levels(n_codebooks, codec.spec)


def levels_for(bitrate: float, spec: CodecSpec) -> int:
    """Return the most levels whose packed codes take at most `bitrate` kbps.

    Raises:
        ValueError: one level takes more.
    """
    one = spec.bitrate / spec.n_codebooks / 1000
    levels = min(int(bitrate / one + 1e-9), spec.n_codebooks)
    if levels < 1:
        raise ValueError(
            f"bitrate = {bitrate:g} kbps: {spec.name} takes {one:g} kbps for each of "
            f"{spec.n_codebooks} levels; give {one:g} or more"
        )
    return levels


def frames_for(seconds: float, spec: CodecSpec, n_codebooks: int) -> int:
    """Return the frames of blocks of some seconds.

    Raises:
        ValueError: no time, or more than a block can hold.
    """
    most = min(_MAX_BLOCK_FRAMES, MAX_BLOCK_CODES // n_codebooks)
    if not 0 < seconds * spec.frame_rate <= most:
        raise ValueError(
            f"block_seconds = {seconds:g}: must be above 0, and at most "
            f"{most / spec.frame_rate:.4g} for {n_codebooks} levels of {spec.name}"
        )
    unit = spec.chunk_length // spec.hop_length or 1  # whole chunks
    return max(1, round(seconds * spec.frame_rate / unit)) * unit
