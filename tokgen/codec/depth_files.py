"""Files with the depth of decoded audio, which `tokgen report` shows under the spectrogram."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor

from tokgen.codec.spec import CodecSpec
from tokgen.runs.folder import write_json

__all__ = ["SUFFIX", "depth_path", "write_depth"]

SUFFIX = ".depth.json"


def depth_path(audio: Path) -> Path:
    """Return the path of the depth of an audio file: x.depth.json for x.wav."""
    return audio.with_suffix(SUFFIX)


def write_depth(audio: Path, depth: Tensor, spec: CodecSpec) -> None:
    """Write the depth of an audio file beside it.

    Args:
        audio: the audio file.
        depth: levels of each frame [T].
        spec: of the codec that decoded it.
    """
    content = {"n_codebooks": spec.n_codebooks, "frame_rate": spec.frame_rate}
    write_json(depth_path(audio), content | {"depth": depth.long().tolist()})
