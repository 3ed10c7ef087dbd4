"""Read metadata.csv and metadata.jsonl of a folder of audio, also in LJSpeech's format.

Paths in metadata are only looked up among the files of the folder. They are never opened.
"""

from __future__ import annotations

import csv
import json
import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Self, TextIO

from tokgen.corpus.links import FIX

__all__ = ["COLUMNS", "LONGEST_LINE", "is_metadata", "read_metadata"]

LONGEST_LINE = 1 << 24  # characters
_UNDECODABLE = re.compile("[\udc80-\udcff]")  # stand for bytes that are not UTF-8
# Names of each field's column, preferred ones first.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "utterance_id", "utt_id", "segment_id", "uid"),
    "text": (
        "normalized_text",
        "normalized",
        "text_normalized",
        "text",
        "transcript",
        "transcription",
        "sentence",
    ),
    "speaker": ("speaker", "speaker_id", "speaker_name", "client_id"),
    "split": ("split", "subset", "partition"),
    "seconds": ("duration", "seconds"),
    "language": ("language", "lang", "locale"),
}
_FILE_COLUMNS = ("file_name", "filename", "file", "path", "audio", "audio_filepath", "audio_path")


def is_metadata(name: str) -> bool:
    """Return whether a path names a metadata file."""
    return posixpath.basename(name).lower() in ("metadata.csv", "metadata.jsonl")


def read_metadata(
    metadata: Mapping[str, Callable[[], TextIO]],
    names: Sequence[str],
    root: str,
    reject: Callable[[str, str], None],
    add_outside: Callable[[str], int | None] | None = None,
) -> dict[int, dict[str, Any]]:
    """Read the fields that metadata files give for audio files.

    Args:
        metadata: function that opens each metadata file, by the file's path inside the corpus.
        names: paths of the audio files inside the corpus.
        root: absolute path or URL of the corpus.
        reject: called with the source and reason of each line that cannot be used.
        add_outside: called with the path, relative to the corpus, of a file outside it. Returns
            the file's position, or None if it does not exist. None refuses such files.
    Returns:
        the given fields (the keys of `COLUMNS`), by position in `names`.
    """
    index = _index(names)
    described: dict[int, dict[str, Any]] = {}
    for inside, open_text in metadata.items():
        try:
            for line, record in _records(inside, open_text):
                source = f"{inside} line {line}"
                if isinstance(record, str):
                    reject(source, record)
                    continue
                file = next((record[c] for c in (*_FILE_COLUMNS, "id") if record.get(c)), None)
                if not isinstance(file, str):
                    reject(source, f"names no file: needs a column {_FILE_COLUMNS[0]!r} or 'id'")
                    continue
                full = _resolve(file, posixpath.dirname(inside), root)
                leaves = full is None or full.split("/")[0] == ".."
                if full is None or (leaves and add_outside is None):
                    fix = "; it is not followed" if "://" in root else f": {FIX}"
                    reject(f"{source}: {file}", f"path leaves the corpus' folder{fix}")
                    continue
                bare = posixpath.basename(full) if "/" not in file else full
                key = index.get(full, index.get(bare))
                if key is None and leaves and add_outside is not None:
                    key = add_outside(full)
                    if key is not None:
                        index[full] = key
                if key is None:
                    reject(f"{source}: {file}", "missing file (or several files of that name)")
                elif key in described:
                    reject(f"{source}: {file}", "duplicate: an earlier line describes this file")
                else:
                    described[key] = _fields(record)
        except OSError as error:
            reject(inside, f"metadata cannot be read ({error}); its further lines are left out")
    return described


def _index(names: Sequence[str]) -> dict[str, int]:
    """Map paths, paths without suffix, file names and stems to positions, if unique."""
    forms: list[Callable[[str], str]] = [
        lambda name: name,
        lambda name: os.path.splitext(name)[0],
        posixpath.basename,
        lambda name: posixpath.basename(os.path.splitext(name)[0]),
    ]
    index: dict[str, int] = {}
    for form in forms:
        count = Counter(map(form, names))
        for key, name in enumerate(names):
            if count[form(name)] == 1:
                index.setdefault(form(name), key)
    return index


def _resolve(file: str, folder_inside: str, root: str) -> str | None:
    """Return the path, relative to the corpus, of a file named in metadata.

    A path outside the folder begins with "..". None stands for a file elsewhere, behind a URL.
    """
    file = file.strip().replace("\\", "/")
    if "://" in file or "://" in root:
        if file.startswith(root + "/"):
            file, folder_inside = file[len(root) + 1 :], ""
        elif "://" in file or posixpath.isabs(file):
            return None
    elif posixpath.isabs(file):
        file, folder_inside = os.path.relpath(file, root), ""
    full = posixpath.normpath(posixpath.join(folder_inside, file))
    return unicodedata.normalize("NFC", full)


def _fields(record: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key in ("id", "text", "speaker", "split", "language"):
        value = next((record[c] for c in COLUMNS[key] if record.get(c) not in (None, "")), None)
        if value is not None:
            fields[key] = str(value)
    with suppress(StopIteration, TypeError, ValueError, OverflowError):
        fields["seconds"] = float(next(record[c] for c in COLUMNS["seconds"] if record.get(c)))
    return fields


def _records(
    name: str, open_text: Callable[[], TextIO]
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield each line's number, and its record or what is wrong with it."""
    with open_text() as file:
        lines = _Lines(file)
        if name.lower().endswith(".jsonl"):
            for line, text in lines:
                if text.strip():
                    yield line, _problem(text) or _json_record(text)
            return
        first, header = next(lines, (1, ""))
        known = {*_FILE_COLUMNS, *COLUMNS["id"]}
        for delimiter in ",|\t;":
            columns = [c.strip().strip('"').lower() for c in header.rstrip("\r\n").split(delimiter)]
            if known & set(columns):
                yield from _csv_records(lines, columns, delimiter)
                return
        if "\0" in header:
            yield 1, "metadata looks like UTF-16: save it as UTF-8"
            return
        if "|" not in header:
            yield 1, f"no header with {_FILE_COLUMNS[0]!r} and no LJSpeech id|text|normalized line"
            return
        lines.put_back([(first, header)])
        for line, text in lines:
            if text.strip():
                yield line, _problem(text) or _ljspeech_record(text)


class _Lines:
    """Iterator over numbered lines, from 1 on; lines can be put back."""

    def __init__(self, file: TextIO) -> None:
        self.file, self.line = file, 0
        self.again: list[tuple[int, str]] = []  # in reverse

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> tuple[int, str]:
        if self.again:
            return self.again.pop()
        text = self.file.readline(LONGEST_LINE)
        if not text:
            raise StopIteration
        rest = text
        while len(rest) == LONGEST_LINE and not rest.endswith("\n"):
            rest = self.file.readline(LONGEST_LINE)
        self.line += 1
        return self.line, text

    def put_back(self, lines: Sequence[tuple[int, str]]) -> None:
        self.again += reversed(lines)


def _problem(text: str) -> str | None:
    """Return what is wrong with a line before it is parsed."""
    if len(text) >= LONGEST_LINE:
        return f"line of over {LONGEST_LINE:,} characters"
    if _UNDECODABLE.search(text):
        return "line is not UTF-8"
    return None


def _csv_records(
    lines: _Lines, columns: Sequence[str], delimiter: str
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield the records of a CSV file. A bad record costs its first line, and no other."""
    for line, text in lines:
        if not text.strip():
            continue
        read = [(line, text)]

        def feed(read: list[tuple[int, str]] = read) -> Iterator[str]:
            yield read[0][1]
            for more in lines:
                read.append(more)
                yield more[1]

        record: dict[str, Any] | str
        try:
            values = next(csv.reader(feed(), delimiter=delimiter))
            if len(read) > 1:  # a quote that is not closed reaches the next one, in another line
                next(csv.reader((t for _, t in read), delimiter=delimiter, strict=True))
            record = _csv_record(values, columns, delimiter)
        except csv.Error as error:
            reason = "a quote is not closed: " if len(read) > 1 else ""
            lines.put_back(read[1:])
            read, record = read[:1], f"not CSV ({reason}{error})"
        problem = next(filter(None, (_problem(text) for _, text in read)), None)
        yield line, problem or record


def _csv_record(
    values: Sequence[str], columns: Sequence[str], delimiter: str
) -> dict[str, Any] | str:
    if len(values) > len(columns) and any(v.strip() for v in values[len(columns) :]):
        return (
            f"{len(values)} fields, but the header has {len(columns)}: put a field with "
            f"{delimiter!r} in double quotes"
        )
    if len(values) == 1 < len(columns):
        return f"1 field, but the header has {len(columns)}: no {delimiter!r} in the line"
    return dict(zip(columns, values, strict=False))


def _json_record(text: str) -> dict[str, Any] | str:
    try:
        record = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"not JSON ({error})"
    return record if isinstance(record, dict) else "not a JSON object"


def _ljspeech_record(text: str) -> dict[str, Any] | str:
    values = text.rstrip("\r\n").split("|")
    if not 2 <= len(values) <= 3:
        return f"{len(values)} fields: LJSpeech lines are id|text|normalized"
    return dict(zip(("id", "text", "normalized"), values, strict=False))
