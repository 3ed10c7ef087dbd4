"""Find the audio of a run folder: utterances x columns of files inside the folder."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokgen.audio.files import display_name
from tokgen.drift.folder import PASS_FILE
from tokgen.drift.summary import DriftSummary
from tokgen.report.json_files import clean_text, items, mapping, text
from tokgen.runs.store import slug

__all__ = [
    "Clip",
    "Column",
    "Listening",
    "plain_file",
    "read_drift_audio",
    "read_samples",
]


@dataclass(frozen=True)
class Column:
    """A version of every utterance: the original, or the output of a codec or model."""

    name: str
    is_original: bool  # the reference of the blind tests


@dataclass(frozen=True)
class Clip:
    """An utterance.

    Attributes:
        id: utterance id.
        text: transcript, "" if unknown.
        files: file by column name; None if the name is not that of a file in the folder.
    """

    id: str
    text: str
    files: dict[str, Path | None]


@dataclass(frozen=True)
class Listening:
    """A table of utterances to compare by ear."""

    title: str
    columns: list[Column]
    clips: list[Clip]  # those to show
    n_clips_found: int  # in the folder


def read_samples(content: dict[str, Any], folder: Path, n_clips: int) -> Listening:
    """Read the content of `samples/index.json`. Of columns with equal names, the first counts."""
    columns: dict[str, Column] = {}
    for column in (mapping(c, "columns") for c in items(content.get("columns"), "columns")):
        name = text(column["name"])
        columns.setdefault(name, Column(name, text(column.get("kind")) == "original"))
    listed = items(content.get("clips"), "clips")
    clips = []
    for i, clip in enumerate(mapping(c, "clips") for c in listed[:n_clips]):
        files = mapping(clip.get("files"), "files")
        found = {
            name: plain_file(folder / "samples", files[name]) for name in columns if name in files
        }
        clips.append(Clip(text(clip.get("id"), str(i)), text(clip.get("text")), found))
    return Listening("Samples", list(columns.values()), clips if columns else [], len(listed))


def plain_file(folder: Path, name: Any) -> Path | None:
    """Return the file `name` of a folder; None if `name` is a path or a link out of the folder."""
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0:"):
        return None
    if len(name.encode("utf-8", "replace")) > 255:
        return None
    path = folder / name
    with suppress(RuntimeError):  # links in a circle
        if path.resolve().parent == folder.resolve():
            return path
    return None


def read_drift_audio(
    folder: Path, summaries: Sequence[DriftSummary], n_clips: int
) -> Listening | None:
    """Find the audio of a drift run: the originals and the saved passes of each codec."""
    places = {s.name: folder / "audio" / slug(s.name) for s in summaries}
    found = [f for place in places.values() if place.is_dir() for f in place.iterdir()]
    names = sorted({f.name for f in found if f.is_dir() and not f.is_symlink()})
    if not names:
        return None
    rates = {s.name: s.spec.get("sample_rate") for s in summaries}
    known = {name: r if isinstance(r, int | float) else 0.0 for name, r in rates.items()}
    by_rate = sorted(summaries, key=lambda s: known[s.name], reverse=True)
    columns = {"original": Column("original", is_original=True)}
    clips = []
    for clip_name in names[:n_clips]:
        files: dict[str, Path | None] = {}
        for summary in by_rate:
            original = plain_file(places[summary.name] / clip_name, "original.wav")
            if original is not None and original.is_file():
                files["original"] = original
                break
        for summary in summaries:
            for n, path in _passes(places[summary.name] / clip_name):
                name = f"{summary.name} pass {n}"
                columns.setdefault(name, Column(name, is_original=False))
                files[name] = path
        clips.append(Clip(clean_text(display_name(clip_name)), "", files))
    return Listening("Drift passes", list(columns.values()), clips, len(names))


def _passes(folder: Path) -> list[tuple[int, Path]]:
    """Return the numbers and files of the passes, in order."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else []:
        match = PASS_FILE.fullmatch(path.name)
        if match and plain_file(folder, path.name):
            found.append((int(match[1]), path))
    return sorted(found)
