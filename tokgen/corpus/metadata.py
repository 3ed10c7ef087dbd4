"""Read metadata.csv and metadata.jsonl of a folder of audio, also in LJSpeech's format.

Paths in metadata are only looked up among the files of the folder. They are never opened.
"""

from __future__ import annotations

import csv
import json
import os
import posixpath
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, TextIO

__all__ = ["COLUMNS", "is_metadata", "read_metadata"]

# Names of each field's column, preferred ones first.
COLUMNS: dict[str, tuple[str, ...]] = {
    "id": ("id", "utterance_id", "utt_id", "segment_id", "uid"),
    "text": (
        "normalized_text",
        "normalized",
        "text",
        "transcript",
        "transcription",
        "sentence",
    ),
    "speaker": ("speaker", "speaker_id", "speaker_name", "client_id"),
    "split": ("split", "subset", "partition"),
    "seconds": ("duration", "seconds"),
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
) -> dict[int, dict[str, Any]]:
    """Read the fields that metadata files give for audio files.

    Args:
        metadata: function that opens each metadata file, by the file's path inside the corpus.
        names: paths of the audio files inside the corpus.
        root: absolute path or URL of the corpus.
        reject: called with the source and reason of each line that cannot be used.
    Returns:
        the given fields among id, text, speaker, split and seconds, by position in `names`.
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
                if full is None:
                    reject(
                        f"{source}: {file}", "path leaves the corpus' folder; it is not followed"
                    )
                    continue
                bare = posixpath.basename(full) if "/" not in file else full
                key = index.get(full, index.get(bare))
                if key is None:
                    reject(f"{source}: {file}", "missing file (or several files of that name)")
                elif key in described:
                    reject(f"{source}: {file}", "duplicate: an earlier line describes this file")
                else:
                    described[key] = _fields(record)
        except UnicodeDecodeError:
            reject(inside, "metadata is not UTF-8; its further lines are left out")
        except (OSError, csv.Error) as error:
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
    """Return the path inside the corpus of a file named in metadata; None if it is outside."""
    file = file.strip().replace("\\", "/")
    if "://" in file or "://" in root:
        if file.startswith(root + "/"):
            file, folder_inside = file[len(root) + 1 :], ""
        elif "://" in file or posixpath.isabs(file):
            return None
    elif posixpath.isabs(file):
        file, folder_inside = os.path.relpath(file, root), ""
    full = posixpath.normpath(posixpath.join(folder_inside, file))
    if full.split("/")[0] == "..":
        return None
    return unicodedata.normalize("NFC", full)


def _fields(record: Mapping[str, Any]) -> dict[str, Any]:
    fields: dict[str, Any] = {}
    for key in ("id", "text", "speaker", "split"):
        value = next((record[c] for c in COLUMNS[key] if record.get(c) not in (None, "")), None)
        if value is not None:
            fields[key] = str(value)
    with suppress(StopIteration, TypeError, ValueError):
        fields["seconds"] = float(next(record[c] for c in COLUMNS["seconds"] if record.get(c)))
    return fields


def _records(
    name: str, open_text: Callable[[], TextIO]
) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Yield each line's number, and its record or what is wrong with it."""
    with open_text() as file:
        if name.lower().endswith(".jsonl"):
            for line, text in enumerate(file, 1):
                if text.strip():
                    yield line, _json_record(text)
            return
        header = file.readline().rstrip("\r\n")
        known = {*_FILE_COLUMNS, *COLUMNS["id"]}
        for delimiter in ",|\t;":
            columns = [c.strip().strip('"').lower() for c in header.split(delimiter)]
            if known & set(columns):
                reader = csv.reader(file, delimiter=delimiter)
                for values in reader:
                    if values:
                        yield reader.line_num + 1, dict(zip(columns, values, strict=False))
                return
        if "|" not in header:
            yield 1, f"no header with {_FILE_COLUMNS[0]!r} and no LJSpeech id|text|normalized line"
            return
        file.seek(0)
        for line, text in enumerate(file, 1):
            if text.strip():
                yield line, _ljspeech_record(text)


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
