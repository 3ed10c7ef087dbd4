"""Write audio of a run to listen to: WAV files and an index that `tokgen report` reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tokgen.audio.files import write_audio
from tokgen.codec.depth_files import depth_path, write_depth
from tokgen.codec.spec import CodecSpec
from tokgen.runs.folder import write_json
from tokgen.runs.store import slug

__all__ = ["INDEX", "Column", "write_samples"]

INDEX = "index.json"


@dataclass(frozen=True)
class Column:
    """One version of the utterances.

    Attributes:
        name: heading of the column.
        kind: "original", "resynthesis" or "generated".
        codec: name of the codec that decoded it; ignored for originals.
        sample_rate: Hz.
        clips: waveforms [1, N] of the first utterances, or of all. One without samples is left
            out.
        depths: levels of each frame [T] of the clips; None if all frames have all levels.
        spec: of the codec; needed for depths.
    """

    name: str
    kind: str
    codec: str | None
    sample_rate: int
    clips: Sequence[Tensor]
    depths: Sequence[Tensor] | None = None
    spec: CodecSpec | None = None


def write_samples(
    folder: Path, columns: Sequence[Column], ids: Sequence[str], texts: Sequence[str | None], n: int
) -> None:
    """Write the first `n` utterances of every column as 16-bit WAV with their depth, and the index.

    Args:
        folder: folder for <number>.<column>.wav and index.json; created if needed.
        columns: columns whose names also differ as file names.
        ids, texts: ids and transcripts of the utterances.
    Raises:
        ValueError: two columns would have the same file name.
    """
    slugs = [slug(column.name) for column in columns]
    if len(set(slugs)) < len(slugs):
        raise ValueError(f"columns {[c.name for c in columns]}: two would have the same files")
    clips = []
    for i in range(min(n, len(ids))):
        files = {}
        for column, short in zip(columns, slugs, strict=True):
            if i >= len(column.clips) or not column.clips[i].numel():
                continue
            files[column.name] = f"{i:03d}.{short}.wav"
            path = folder / files[column.name]
            write_audio(path, column.clips[i], column.sample_rate)
            if column.depths is not None and column.spec is not None:
                write_depth(path, column.depths[i], column.spec)
            else:
                depth_path(path).unlink(missing_ok=True)  # of an earlier run
        clips.append({"id": ids[i], "text": texts[i], "files": files})
    about = [
        {"name": c.name, "kind": c.kind, "codec": None if c.kind == "original" else c.codec}
        for c in columns
    ]
    write_json(folder / INDEX, {"columns": about, "clips": clips})
