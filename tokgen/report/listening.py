"""What there is to listen to in a run folder: utterances x columns of plain files inside it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokgen.audio.files import display_name
from tokgen.drift.summary import DriftSummary
from tokgen.report.json_files import clean_text, items, mapping, text
from tokgen.runs.store import slug

PASS_FILE = re.compile(r"pass(\d{1,4})\.wav")


@dataclass(frozen=True)
class Column:
    """One way an utterance sounds; `kind` "original" marks the reference."""

    name: str
    kind: str
    codec: str


@dataclass(frozen=True)
class Clip:
    """An utterance: its files by column, None where one may not be opened."""

    id: str
    text: str
    files: dict[str, Path | None]


@dataclass(frozen=True)
class Listening:
    """Utterances that can be compared by ear."""

    title: str
    columns: list[Column]
    clips: list[Clip]
    n_clips_found: int


def read_samples(content: dict[str, Any], folder: Path, n_clips: int) -> Listening:
    """`samples/index.json` -> what it lists; the first column of each name counts."""
    columns: dict[str, Column] = {}
    for column in (mapping(c, "columns") for c in items(content.get("columns"), "columns")):
        name = text(column["name"])
        kind = text(column.get("kind")) or "generated"
        columns.setdefault(name, Column(name, kind, text(column.get("codec"))))
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
    """The file of that name in a folder; None for a path, or a link that leads out of it."""
    if not isinstance(name, str) or name in ("", ".", "..") or set(name) & set("/\\\0:"):
        return None
    if len(name.encode("utf-8", "replace")) > 255:
        return None
    path = folder / name
    inside = path.resolve().parent == folder.resolve()
    return path if inside else None


def read_drift_audio(
    folder: Path, summaries: Sequence[DriftSummary], n_clips: int
) -> Listening | None:
    """Audio of a drift run: original, and each codec's first and last pass."""
    places = {s.name: folder / "audio" / slug(s.name) for s in summaries}
    names = sorted({clip.name for place in places.values() for clip in _folders(place)})
    if not names:
        return None
    widest = sorted(summaries, key=_rate, reverse=True)
    columns = {"original": Column("original", "original", "")}
    clips = []
    for clip_name in names[:n_clips]:
        files: dict[str, Path | None] = {}
        for summary in widest:
            found = plain_file(places[summary.name] / clip_name, "original.wav")
            if found is not None and found.is_file():
                files["original"] = found
                break
        for summary in summaries:
            for n, path in _passes(places[summary.name] / clip_name):
                name = f"{summary.name} pass {n}"
                columns.setdefault(name, Column(name, "resynthesis", summary.name))
                files[name] = path
        clips.append(Clip(clean_text(display_name(clip_name)), "", files))
    return Listening("Drift passes", list(columns.values()), clips, len(names))


def _rate(summary: DriftSummary) -> float:
    rate = summary.spec.get("sample_rate")
    return float(rate) if isinstance(rate, int | float) else 0.0


def _folders(place: Path) -> list[Path]:
    found = list(place.iterdir()) if place.is_dir() else []
    return [f for f in found if f.is_dir() and not f.is_symlink()]


def _passes(folder: Path) -> list[tuple[int, Path]]:
    """(pass, file) in order."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else []:
        match = PASS_FILE.fullmatch(path.name)
        if match and plain_file(folder, path.name):
            found.append((int(match[1]), path))
    return sorted(found)
