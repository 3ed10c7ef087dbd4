"""Settings of compression: levels, entropy model and length of blocks."""

from __future__ import annotations

from pathlib import Path
from typing import TypedDict

from tokgen.bitstream.tgc.entropy import EntropyModel
from tokgen.bitstream.tgc.layout import MAX_BLOCK_CODES
from tokgen.codec.spec import CodecSpec

__all__ = ["BLOCK_SECONDS", "Compression", "frames_for", "levels_for"]

BLOCK_SECONDS = 10.0  # of a block; a damaged block is lost as a whole
_MAX_BLOCK_FRAMES = 65_535


class Compression(TypedDict, total=False):
    """Settings of `CompressedWriter`, each with its default."""

    n_codebooks: int | None
    bitrate: float | None
    beam: int
    entropy: str | Path | EntropyModel
    block_seconds: float


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
            f"{spec.n_codebooks} levels"
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
