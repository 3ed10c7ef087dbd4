"""The files of each format of an export.

| format | files of the split train |
|---|---|
| jsonl | `train.jsonl`, a line per utterance |
| webdataset | `train-000000.tar` ..., with `<key>.json` and `<key>.tokens.npy` per utterance |
| lhotse | `train.cuts.jsonl.gz`, and a NumPy file per utterance in `tokens/train/` |

Names of files are numbers of rows, never ids. No pickle is written or read.
"""

from __future__ import annotations

import gzip
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from itertools import chain, count, islice
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tokgen.tokens.export.rows import ExportedRow

__all__ = ["LONGEST", "READERS", "WRITERS", "Split"]

LONGEST = 1 << 28  # bytes of one entry or line; an hour of 8 levels at 75 Hz has about 20 MB
_CUTS, _TOKENS = "cuts.jsonl.gz", "tokens"


class Split(NamedTuple):
    """A split of an export.

    Attributes:
        folder: folder that is written to or read.
        name: name of the split.
        place: folder that the files will be in, which Lhotse's manifest names.
        sample_rate: Hz of the audio.
        shard_rows: utterances per shard of webdataset.
    """

    folder: Path
    name: str
    place: Path
    sample_rate: int
    shard_rows: int = 1000


def _write_jsonl(split: Split, rows: Iterable[ExportedRow]) -> None:
    with (split.folder / f"{split.name}.jsonl").open("w", encoding="utf-8") as file:
        for row in rows:
            file.write(_line({**row.about(), "tokens": row.tokens.tolist()}))


def _read_jsonl(split: Split) -> Iterator[ExportedRow]:
    with (split.folder / f"{split.name}.jsonl").open("rb") as file:
        for about in _lines(file):
            yield ExportedRow.of(about, np.array(about.get("tokens"), dtype=np.int64))


def _write_tar(split: Split, rows: Iterable[ExportedRow]) -> None:
    numbered = enumerate(rows)
    for shard in count():
        part = list(islice(numbered, 1))  # a shard is opened only if it gets a row
        if not part:
            return
        path = split.folder / f"{split.name}-{shard:06}.tar"
        with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
            for i, row in chain(part, islice(numbered, split.shard_rows - 1)):
                key = f"{split.name}-{i:09}"
                _add(archive, f"{key}.json", _line(row.about()).encode())
                _add(archive, f"{key}.tokens.npy", _npy(row.tokens))


def _add(archive: tarfile.TarFile, name: str, data: bytes) -> None:
    entry = tarfile.TarInfo(name)  # without owner and time: equal tokens give equal files
    entry.size = len(data)
    archive.addfile(entry, io.BytesIO(data))


def _read_tar(split: Split) -> Iterator[ExportedRow]:
    for shard in sorted(split.folder.glob(f"{split.name}-[0-9]*.tar")):
        with tarfile.open(shard, "r:") as archive:
            about: Any = None
            for entry in archive:  # in the order of the file; nothing is extracted to disk
                data = archive.extractfile(entry) if entry.isfile() else None
                if data is None or entry.size > LONGEST:
                    raise ValueError(f"{shard}: {entry.name!r} is no entry of an export")
                if entry.name.endswith(".json"):
                    about = json.loads(data.read())
                elif entry.name.endswith(".tokens.npy"):
                    yield ExportedRow.of(about, _array(data.read()))


def _write_cuts(split: Split, rows: Iterable[ExportedRow]) -> None:
    arrays = split.folder / _TOKENS / split.name
    arrays.mkdir(parents=True)
    place = str(split.place / _TOKENS / split.name)
    with gzip.GzipFile(split.folder / f"{split.name}.{_CUTS}", "wb", mtime=0) as file:
        for i, row in enumerate(rows):
            key = f"{i:09}.npy"
            (arrays / key).write_bytes(_npy(row.tokens))
            file.write(_line(_cut(row, split.sample_rate, place, key)).encode())


def _cut(row: ExportedRow, sample_rate: int, place: str, key: str) -> dict[str, Any]:
    """Return a MonoCut of Lhotse without audio, whose custom field `tokens` is an Array."""
    duration = row.n_samples / sample_rate
    supervision = {
        "id": row.id, "recording_id": row.id, "start": 0.0, "duration": duration, "channel": 0,
    }  # fmt: skip
    if row.text is not None:
        supervision["text"] = row.text
    if row.speaker is not None:
        supervision["speaker"] = row.speaker
    array = {
        "storage_type": "numpy_files", "storage_path": place, "storage_key": key,
        "shape": list(row.tokens.shape),
    }  # fmt: skip
    custom = {"tokens": array, "n_samples": row.n_samples}
    if row.side:
        custom["side"] = row.side
    return {
        "id": row.id, "start": 0.0, "duration": duration, "channel": 0,
        "supervisions": [supervision], "custom": custom, "type": "MonoCut",
    }  # fmt: skip


def _read_cuts(split: Split) -> Iterator[ExportedRow]:
    arrays = split.folder / _TOKENS / split.name
    with gzip.open(split.folder / f"{split.name}.{_CUTS}", "rb") as file:
        for i, cut in enumerate(_lines(file)):
            custom = cut.get("custom")
            said = cut.get("supervisions") or [{}]
            if not isinstance(custom, dict) or not isinstance(said[0], dict):
                raise ValueError(f"cut {i} has no tokens")
            about = {
                "id": cut.get("id"), "n_samples": custom.get("n_samples"),
                "text": said[0].get("text"), "speaker": said[0].get("speaker"),
                "side": custom.get("side", {}),
            }  # fmt: skip
            # The path in the manifest is never used: the arrays lie beside it, by number.
            yield ExportedRow.of(about, _array((arrays / f"{i:09}.npy").read_bytes()))


def _npy(tokens: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, tokens, allow_pickle=False)
    return buffer.getvalue()


def _array(data: bytes) -> np.ndarray:
    found = np.load(io.BytesIO(data), allow_pickle=False)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "iu":
        raise ValueError("tokens are no array of integers")
    return found


def _line(content: dict[str, Any]) -> str:
    return json.dumps(content, ensure_ascii=False, separators=(",", ":")) + "\n"


def _lines(file: Any) -> Iterator[dict[str, Any]]:
    number = 0
    while line := file.readline(LONGEST):
        number += 1
        found = json.loads(line)
        if not isinstance(found, dict):
            raise ValueError(f"line {number} is no JSON object")
        yield found


WRITERS = {"jsonl": _write_jsonl, "webdataset": _write_tar, "lhotse": _write_cuts}
READERS = {"jsonl": _read_jsonl, "webdataset": _read_tar, "lhotse": _read_cuts}
