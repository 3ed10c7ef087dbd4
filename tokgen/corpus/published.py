"""List published corpora by their layout: LJSpeech, VCTK, LibriTTS, Expresso, DAPS, Common Voice.

Folders are read as they were published. In tables (Parquet files, saved and hub datasets), the
columns say the rest, and the layout adds its language, speaker and splits.
"""

from __future__ import annotations

import csv
import posixpath
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TextIO

from tokgen.audio.files import AUDIO_SUFFIXES, read_duration
from tokgen.corpus.cuts import Cut, CutStore
from tokgen.corpus.entries import AudioStore, Catalogue, stem
from tokgen.corpus.folders import FileStore, Found, list_files, open_text, path_inside, shown_name
from tokgen.corpus.layouts import Layout
from tokgen.corpus.metadata import LONGEST_LINE
from tokgen.corpus.remote import RemoteFile
from tokgen.corpus.splits import assign_split
from tokgen.runs.progress import progress_bar

__all__ = ["adjust_rows", "list_published"]

_Span = tuple[int, int | None]  # start and length in milliseconds; None: to the end
_TIMES = re.compile(r"\(\s*([\d.]*)s?\s*,\s*([\d.]*)s?\s*\)")  # of Expresso: "(60.0s,120.0s)"


@dataclass
class _About:
    """Fields of a clip from the tables of its corpus, and its spans by split."""

    fields: dict[str, Any] = field(default_factory=dict)
    spans: list[tuple[str, _Span]] = field(default_factory=list)


def list_published(
    layout: Layout,
    source: Path | str,
    found: Found,
    catalogue: Catalogue,
    *,
    follow_links: bool = False,
) -> AudioStore:
    """List a published corpus.

    Args:
        source, found: argument and result of `find_files`.
        catalogue: receives the entries.
        follow_links: as in `list_files`, for tables.
    Raises:
        ValueError: there is no file of the layout, and no table with audio.
    """
    root = source if isinstance(source, Path) else source.rstrip("/")
    # The folder may be a part of the corpus, such as LibriTTS/test-clean, so its name counts.
    names = {f"{found.name}/{path_inside(file, root)}": file for file in found.files}
    clips = {name: match for name in names if (match := layout.audio.fullmatch(name))}
    if not clips:
        if any(posixpath.splitext(name)[1].lower() in AUDIO_SUFFIXES for name in names):
            raise ValueError(
                f"{source} has no audio in the layout of {layout.title} ({layout.example})"
                f"{found.note()}"
            )
        store = list_files(source, found, catalogue, follow_links=follow_links)
        adjust_rows(layout, catalogue)
        return store
    tables = {name: file for name, file in names.items() if _is_table(layout, name)}
    described = _describe(tables, catalogue)
    if layout.is_listed and not any(about.spans for about in described.values()):
        raise ValueError(
            f"{source} has audio of {layout.title}, but none of the files that list its splits "
            f"({layout.tables_example}){found.note()}"
        )
    files: list[Any] = []
    cuts: list[Cut] = []
    for name, match in progress_bar(f"listing {found.name}", clips.items(), unit="file", delay=2):
        groups, file = match.groupdict(default=""), names[name]
        about = described.get(groups["id"], _About())
        fields: dict[str, Any] = {"speaker": layout.speaker or groups.get("speaker")}
        if layout.text and (path := layout.text.format_map(groups)) in names:
            fields["text"] = _read_text(names[path])
        fields |= about.fields
        speaker = str(fields["speaker"] or "")
        spans = about.spans
        if layout.own_split:
            spans = [(layout.own_split(groups["id"], speaker), (0, None))]
        elif not spans and not layout.is_listed:
            spans = [(groups.get("split") or assign_split(groups["id"]), (0, None))]
        if spans:
            files.append(file)
        if "seconds" not in fields and isinstance(file, Path) and spans:
            fields["seconds"] = read_duration(file)
        for split, span in spans:
            id, piece = groups["id"], fields | {"split": split}
            if span != (0, None):
                id = f"{id}@{span[0] / 1000:.3f}"
                piece |= {"text": None, "seconds": _seconds_of(span, fields.get("seconds"))}
            catalogue.add(len(cuts), id, shown_name(file), piece)
            cuts.append(Cut(len(files) - 1, *span))
    present = {match["id"] for match in clips.values()}
    for id, about in described.items():
        if about.spans and id not in present:
            catalogue.reject(id, f"missing file: the tables of {found.name} name it")
    return CutStore(FileStore(files), cuts)


def adjust_rows(layout: Layout, catalogue: Catalogue) -> None:
    """Give the rows of a table what a layout says: speaker and splits."""
    entries = []
    for entry in catalogue.entries:
        if layout.left_out and layout.left_out.search(entry.id):
            continue
        id = re.sub(r"_mic\d$", "", entry.id) if layout.left_out else entry.id
        speaker = entry.speaker or layout.speaker
        split = entry.split.replace(".", "-")  # datasets write train.clean.100
        if layout.own_split:
            split = layout.own_split(id, speaker or "")
        entries.append(replace(entry, id=id, speaker=speaker, split=split))
    catalogue.entries = entries


def _is_table(layout: Layout, name: str) -> bool:
    """Return whether the end of a path names a table of the layout."""
    return bool(layout.tables and re.search(rf"(^|/)({layout.tables.pattern})$", name))


def _describe(tables: Mapping[str, Path | RemoteFile], catalogue: Catalogue) -> dict[str, _About]:
    """Read the tables that describe clips, by the id of the clip."""
    described: dict[str, _About] = {}
    for name, file in tables.items():
        kind = stem(posixpath.basename(name))
        try:
            with open_text(file) as lines:
                for id, fields, spans in _reader(name)(_bounded(lines), kind):
                    about = described.setdefault(id, _About())
                    about.fields |= {k: v for k, v in fields.items() if v}
                    about.spans += spans
        except (OSError, ValueError, csv.Error) as error:
            catalogue.reject(shown_name(file), f"cannot be read further ({error})")
    return described


_Row = tuple[str, dict[str, Any], list[tuple[str, _Span]]]


def _bounded(file: TextIO) -> Iterator[str]:
    """Yield the lines of a file, which must not fill the memory."""
    while line := file.readline(LONGEST_LINE):
        if len(line) == LONGEST_LINE:
            raise ValueError(f"line of over {LONGEST_LINE:,} characters")
        yield line


def _ljspeech(lines: Iterable[str], kind: str) -> Iterator[_Row]:
    """Read metadata.csv: id|text|normalized."""
    for line in lines:
        values = line.rstrip("\r\n").split("|")
        if len(values) > 1:
            text = values[2] if len(values) > 2 and values[2] else values[1]
            yield values[0], {"text": text}, [("", (0, None))]


def _transcriptions(lines: Iterable[str], kind: str) -> Iterator[_Row]:
    """Read Expresso's read_transcriptions.txt: id, tab, text."""
    for line in lines:
        id, tab, text = line.rstrip("\r\n").partition("\t")
        if tab:
            yield id, {"text": text}, []


def _expresso_split(lines: Iterable[str], kind: str) -> Iterator[_Row]:
    """Read Expresso's splits/dev.txt: an id, or an id, a tab and "(start,end)"."""
    for line in lines:
        id, _, times = line.strip().partition("\t")
        if id and not id.startswith("#"):
            spans = [_span(*times) for times in _TIMES.findall(times)] or [(0, None)]
            yield id, {}, [(kind, span) for span in spans]


def _span(start: str, stop: str) -> _Span:
    first = round(1000 * float(start or 0))
    if not stop:
        return first, None
    length = round(1000 * float(stop)) - first
    if length <= 0:
        raise ValueError(f"({start}, {stop}) is no span of time")
    return first, length


def _seconds_of(span: _Span, whole: float | None) -> float | None:
    start, length = span
    if length is not None:
        return length / 1000
    return None if whole is None else max(0.0, whole - start / 1000)


def _common_voice(lines: Iterable[str], kind: str) -> Iterator[_Row]:
    """Read train.tsv, dev.tsv or test.tsv, and clip_durations.tsv, of Common Voice."""
    for row in _tsv(lines):
        if kind == "clip_durations":
            milliseconds = row.get("duration[ms]") or row.get("duration") or ""
            if milliseconds.isdecimal():
                yield stem(row.get("clip") or ""), {"seconds": int(milliseconds) / 1000}, []
        elif path := row.get("path"):
            about = {"speaker": "client_id", "text": "sentence", "language": "locale"}
            fields = {key: row.get(column) for key, column in about.items()}
            yield re.sub(r"\.(mp3|wav)$", "", path), fields, [(kind, (0, None))]


def _tsv(lines: Iterable[str]) -> Iterator[dict[str, str | None]]:
    yield from csv.DictReader(
        (line for line in lines if "\0" not in line), delimiter="\t", quoting=csv.QUOTE_NONE
    )


def _reader(name: str) -> Callable[[Iterable[str], str], Iterator[_Row]]:
    """Return the function that reads a table, by the table's name."""
    if name.endswith(".tsv"):
        return _common_voice
    if name.endswith("metadata.csv"):
        return _ljspeech
    return _transcriptions if name.endswith("read_transcriptions.txt") else _expresso_split


def _read_text(file: Path | RemoteFile) -> str:
    with open_text(file) as text:
        return text.read(1 << 20)
